"""Alerts reach real receivers once, wait for those that are away, and never hold up or fail whoever tells them."""

from __future__ import annotations

import datetime as dt
import json
import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from mlplatform.alerts import delivery
from mlplatform.alerts.alert import Alert
from mlplatform.alerts.delivery import deliver_alerts, has_channels, post_alert, send_alert
from mlplatform.alerts.messages import broken_data, gave_up, promoted, requested, run_failed, server_not_loaded
from mlplatform.config import ALERT_EVENTS, QuietHours
from mlplatform.settings import Settings
from mlplatform_tests.alerts.receivers import Hook, hook, mailbox

TOKEN = "an-admin-token-of-this-test"


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    with hook() as running:
        monkeypatch.setenv("MLPLATFORM_ALERT_URLS", running.url)
        yield running


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings.from_env(
        {
            "MLPLATFORM_HOME": str(tmp_path / "home"),
            "MLPLATFORM_CONF_DIR": str(tmp_path / "conf"),
            "MLPLATFORM_ADMIN_TOKEN": TOKEN,
            "MLPLATFORM_REDIS_URL": "redis://:pa55-of-redis@cache:6379/0",
            "MLPLATFORM_DAGSTER_URL": "http://dagster.example:3000/",
        }
    )


def configure(settings: Settings, **values: object) -> Settings:
    """Write an option of the group `alerts` of one's own; a second one is called `own`, too."""
    assert settings.conf_dir is not None
    path = settings.conf_dir / "alerts" / "own.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    channels = {"default": {"url_env": "MLPLATFORM_ALERT_URLS"}}
    path.write_text(yaml.safe_dump({"channels": channels, "timeout_s": 1, **values}))
    return replace(settings, alerts_config="own")


def waiting(settings: Settings) -> list[Path]:
    return list((settings.home / "alerts" / "outbox").glob("*.json"))


def test_a_web_hook_is_told_with_links_to_run_check_and_report(settings: Settings, receiver: Hook) -> None:
    send_alert(
        settings, promoted(settings, "fleet_xgboost", 3, 2, "reference_mae 1.2 beats version 2 with 1.4", "run-7")
    )
    send_alert(settings, broken_data(settings, "fleet_xgboost", ["stuck:load_pu"], "2024-03-01T00:00:00+00:00"))
    first, second = receiver.received
    assert first["title"] == "fleet_xgboost: version 3 is in production"
    assert "after version 2" in first["message"]
    assert "run: http://dagster.example:3000/runs/run-7" in first["message"]
    assert "stuck:load_pu" in second["message"]
    assert "report: http://dagster.example:3000/assets/fleet_xgboost/drift_report" in second["message"]
    assert (first["type"], second["type"]) == ("info", "warning")
    assert waiting(settings) == []


def test_a_mail_server_is_told(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with mailbox() as box:
        monkeypatch.setenv("MLPLATFORM_ALERT_URLS", box.url)
        send_alert(settings, gave_up(settings, "fleet_xgboost", ["errors"], "request-1", "run-9"))
    (mail,) = box.mails
    assert mail["Subject"] == "fleet_xgboost: training again failed"
    assert mail["To"] == "oncall@example.com"
    assert "runs/run-9" in mail.get_body().get_content()


def test_the_same_alert_is_told_once_until_it_is_repeated(settings: Settings, receiver: Hook) -> None:
    alert = broken_data(settings, "fleet_xgboost", ["stuck:a"], "2024-03-01T00:00:00+00:00")
    for until in ("2024-03-01", "2024-03-02"):
        send_alert(settings, broken_data(settings, "fleet_xgboost", ["stuck:a"], until))
    assert len(receiver.received) == 1
    send_alert(settings, broken_data(settings, "fleet_xgboost", ["stuck:a", "unit:b"], "2024-03-02"))
    send_alert(settings, broken_data(settings, "another", ["stuck:a"], "2024-03-02"))
    assert len(receiver.received) == 3
    told = settings.home / "alerts" / "told.json"
    yesterday = (dt.datetime.now(dt.UTC) - dt.timedelta(hours=25)).isoformat()
    told.write_text(json.dumps({alert.digest: dict.fromkeys(json.loads(told.read_text())[alert.digest], yesterday)}))
    send_alert(settings, alert)
    assert len(receiver.received) == 4


def test_a_channel_that_is_away_hears_it_later_and_the_other_one_once(
    settings: Settings, receiver: Hook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with hook() as other:
        monkeypatch.setenv("MLPLATFORM_ALERT_URLS", f"{receiver.url}, {other.url}")
        other.status = 500
        with caplog.at_level(logging.WARNING):
            send_alert(settings, requested(settings, "fleet_xgboost", ["errors"], "r1", 1))
        assert "did not take the alert" in caplog.text
        assert other.url not in caplog.text
        assert len(waiting(settings)) == 1
        other.status = 200
        assert deliver_alerts(settings) == 1
        assert (len(receiver.received), len(other.received)) == (1, 1)
        assert waiting(settings) == []


def test_a_channel_that_hangs_costs_its_time_and_no_more(settings: Settings, receiver: Hook) -> None:
    own = configure(settings, timeout_s=0.3)
    receiver.delay_s = 3.0
    for number in range(5):
        post_alert(own, requested(settings, "fleet_xgboost", ["errors"], f"r{number}", 1))
    began = time.monotonic()
    assert deliver_alerts(own) == 0
    assert time.monotonic() - began < 2
    assert len(waiting(own)) == 5


def test_addresses_that_lead_nowhere_or_make_no_sense_raise_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    alert = run_failed(settings, "train_fleet_xgboost", "run-1", ["fleet__raw"], ["DataError"])
    for urls in ("json://127.0.0.1:9/", "no address at all", "nonsense://x", "mailto://"):
        monkeypatch.setenv("MLPLATFORM_ALERT_URLS", urls)
        send_alert(configure(settings), alert)
        assert urls not in caplog.text
    send_alert(replace(settings, alerts_config="not-there"), alert)
    assert "unknown alerts 'not-there'" in caplog.text
    (settings.home / "alerts" / "told.json").write_text("{ torn")
    for path in waiting(settings):
        path.write_text("{ torn")
    assert deliver_alerts(settings) == 0
    assert waiting(settings) == []


def test_nobody_to_tell_leaves_nothing_behind(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLPLATFORM_ALERT_URLS", raising=False)
    assert not has_channels(settings)
    send_alert(settings, server_not_loaded(settings, "fleet_xgboost", None, "reload_failed"))
    assert not (settings.home / "alerts").exists()


def test_a_channel_hears_only_of_its_events(settings: Settings, receiver: Hook) -> None:
    own = configure(settings, channels={"bad": {"url_env": "MLPLATFORM_ALERT_URLS", "events": ["run_failed"]}})
    send_alert(own, requested(settings, "fleet_xgboost", ["errors"], "r", 1))
    send_alert(own, run_failed(settings, "ingest_fleet", "run-1", [], []))
    assert receiver.titles == ["ingest_fleet failed"]


def test_quiet_hours_hold_back_what_can_wait(settings: Settings, receiver: Hook) -> None:
    hours = {"start": "22:00", "end": "07:00", "zone": "Europe/Berlin"}
    own = configure(settings, quiet_hours=hours)
    night, morning = dt.datetime(2026, 1, 10, 2, tzinfo=dt.UTC), dt.datetime(2026, 1, 10, 6, 30, tzinfo=dt.UTC)
    post_alert(own, requested(settings, "fleet_xgboost", ["errors"], "r", 1))
    post_alert(own, broken_data(settings, "fleet_xgboost", ["stuck:a"], "2024-03-01"))
    deliver_alerts(own, night)
    assert receiver.titles == ["fleet_xgboost: the data are broken"]
    deliver_alerts(own, morning)
    assert receiver.titles[1:] == ["fleet_xgboost: training again"]


@pytest.mark.parametrize(("start", "end", "quiet"), [("22:00", "07:00", {22, 2, 6}), ("01:00", "03:00", {1, 2})])
def test_the_hours_of_the_night(start: str, end: str, quiet: set[int]) -> None:
    hours = QuietHours.model_validate({"start": start, "end": end})
    for hour in (0, 1, 2, 3, 6, 7, 12, 21, 22):
        expected = hour in quiet or (start == "22:00" and hour in (0, 1, 3))
        assert hours.hold("promoted", dt.datetime(2026, 1, 1, hour, tzinfo=dt.UTC)) == expected


def test_hours_without_length_and_unknown_zones_are_refused() -> None:
    for values in ({"start": "07:00", "end": "07:00"}, {"start": "22:00", "end": "07:00", "zone": "Mars/Olympus"}):
        with pytest.raises(ValidationError):
            QuietHours.model_validate(values)


def test_no_secret_is_in_any_message(settings: Settings, receiver: Hook) -> None:
    text = f"token {TOKEN}, password pa55-of-redis, at postgresql://me:hunter2@db/x, hook {receiver.url}"
    send_alert(settings, Alert("refused", "fleet_xgboost", text, text, links={"run": f"http://u:{TOKEN}@x/"}))
    (received,) = receiver.received
    for secret in (TOKEN, "pa55-of-redis", "hunter2", receiver.url):
        assert secret not in json.dumps(received)
    assert "postgresql://***@db/x" in received["message"]


def test_many_tellers_at_once_tell_it_once(settings: Settings, receiver: Hook) -> None:
    alert = requested(settings, "fleet_xgboost", ["errors"], "r", 1)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: send_alert(settings, alert), range(16)))
    deliver_alerts(settings)
    assert len(receiver.received) == 1


def test_the_outbox_has_an_end(settings: Settings, receiver: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "MOST_WAITING", 3)
    receiver.status = 500
    for number in range(6):
        post_alert(settings, requested(settings, "fleet_xgboost", ["errors"], f"r{number}", 1))
    assert len(waiting(settings)) == 3
    assert deliver_alerts(settings, dt.datetime.now(dt.UTC) + dt.timedelta(hours=73)) == 0
    assert len(waiting(settings)) == 0


def test_every_event_has_a_message_that_uses_it() -> None:
    source = (Path(delivery.__file__).parent / "messages.py").read_text()
    assert [event for event in ALERT_EVENTS if f'"{event}"' not in source] == []


def an_alert(identity: str) -> Alert:
    return Alert("drift", "yard", "title", "text", identity)


@pytest.mark.parametrize("damage", ["[]", '{"%s": 5}', '{"%s": {"%s": 5}}', '{"%s": {"%s": "soon"}}'])
def test_what_is_damaged_of_what_was_told_keeps_nothing_back(settings: Settings, receiver: Hook, damage: str) -> None:
    first, second = an_alert("first"), an_alert("second")
    send_alert(settings, first)
    path = settings.home / "alerts" / "told.json"
    (channel,) = json.loads(path.read_text())[first.digest]
    path.write_text(damage % (second.digest, channel)[: damage.count("%s")])
    for alert in (second, an_alert("third")):
        # Written anew, it is known again.
        for _ in range(2):
            send_alert(settings, alert)
    assert receiver.titles == ["title"] * 3


@pytest.mark.parametrize(("at", "is_repeated"), [("2999-01-01T00:00:00+00:00", True), ("now", False)])
def test_what_was_told_in_the_future_is_told_again(
    settings: Settings, receiver: Hook, at: str, is_repeated: bool
) -> None:
    alert = an_alert("first")
    send_alert(settings, alert)
    path = settings.home / "alerts" / "told.json"
    # Without a zone it is in UTC.
    stamp = at if at != "now" else dt.datetime.now(dt.UTC).replace(tzinfo=None).isoformat()
    path.write_text(json.dumps({alert.digest: dict.fromkeys(json.loads(path.read_text())[alert.digest], stamp)}))
    for _ in range(2):
        send_alert(settings, alert)
    assert len(receiver.received) == 1 + is_repeated


def test_a_file_in_the_outbox_that_is_no_alert_keeps_no_other_back(
    settings: Settings, receiver: Hook, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = settings.home / "alerts" / "outbox"
    outbox.mkdir(parents=True)
    naive = dt.datetime.now(dt.UTC).replace(tzinfo=None).isoformat()
    values = an_alert("of a newer version, and without a zone").to_json() | {"newer": 1}
    (outbox / "naive.json").write_text(json.dumps({"posted_at": naive, "alert": values, "newer": 2}))
    (outbox / "links.json").write_text(json.dumps({"posted_at": naive, "alert": values | {"links": None}}))
    (outbox / "folder.json").mkdir()
    send_alert(settings, an_alert("whole"))
    assert len(receiver.received) == 2
    assert f"{outbox / 'links.json'} cannot be read and is left out" in caplog.text
    assert f"the alert {outbox / 'folder.json'} could not be delivered" in caplog.text
    assert waiting(settings) == [outbox / "folder.json"]
