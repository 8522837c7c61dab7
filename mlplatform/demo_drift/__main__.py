"""The two acts of `make demo-drift`: a failure that is learnt, and a broken sensor that is not."""

from __future__ import annotations

import datetime as dt
import os
import secrets
import sys
import time
from collections.abc import Callable

from mlplatform.child_processes import free_port
from mlplatform.demo_drift.client import Client
from mlplatform.demo_drift.picture import draw
from mlplatform.demo_drift.plant import (
    COOLING_FAILS,
    END,
    EXPERIMENT,
    SENSOR_STICKS,
    START,
    STUCK_COLUMN,
    TRAINED_UNTIL,
    Plant,
)
from mlplatform.demo_drift.processes import DemoError, daemon, hook, run_job, server, wait_for
from mlplatform.settings import Settings

# The days of the plant on which a drift report is made, once their rows are there.
HEALTHY, DRIFTED, RECOVERED = dt.date(2024, 3, 15), (dt.date(2024, 3, 22), dt.date(2024, 3, 29)), dt.date(2024, 4, 5)
RETRAINED_WITHIN_S, TOLD_WITHIN_S, LOGGED_WITHIN_S = 240.0, 120.0, 60.0


class Demo:
    """One run of the demo."""

    def __init__(self, plant: Plant, environment: dict[str, str], client: Client) -> None:
        self.plant, self.environment, self.client = plant, environment, client
        self.settings = Settings.from_env(environment)
        self.marks: dict[str, dt.datetime] = {}

    def report(self, day: dt.date) -> None:
        """Live through a day and have its drift report made."""
        self.client.live_until(day + dt.timedelta(days=1))
        # The server writes its log every few seconds, which are weeks of the plant.
        wait_for(self._is_logged, "the server to log its forecasts", LOGGED_WITHIN_S, 0.5)
        # As a backfill of that day would.
        tags = {f"dagster/asset_partition_range_{end}": day.isoformat() for end in ("start", "end")}
        run_job(f"monitor_{EXPERIMENT}", self.environment, self.plant.folder / "monitor.log", tags)
        from mlplatform.monitoring import read_report

        report = read_report(self.settings, EXPERIMENT)
        assert report is not None
        errors = report.errors
        found = f"broken: {', '.join(each.name for each in report.quality)}" if report.quality else ""
        found = found or f"drifted: {', '.join(report.causes) or 'nothing'}"
        recent = "unknown" if errors.recent is None else f"{errors.recent:.2f} K"
        _say(f"     {day}  live error {recent} (on the reference set {errors.reference or 0:.2f} K)  {found}")

    def first_act(self) -> None:
        """The fans of all transformers fail, which is learnt."""
        _say(f"\n2/4  The plant goes on, hour by hour; on {COOLING_FAILS} the fans of all transformers fail")
        self.marks["the fans fail"] = _moment(COOLING_FAILS)
        for day in (HEALTHY, *DRIFTED):
            self.report(day)
        self.marks["a training is asked for"] = self.client.now
        _say("     The sensor looks every five seconds; requests go on meanwhile")
        wait_for(self._is_swapped, "a new version that answers", RETRAINED_WITHIN_S, 0.1)
        self.marks["version 2 answers"] = self.client.now
        _say(
            f"     Version {self.client.version} answers; {self.client.answered} requests, "
            f"{len(self.client.failed)} failed"
        )
        self.report(RECOVERED)

    def second_act(self) -> None:
        """A sensor sticks, which is not learnt."""
        _say(f"\n3/4  On {SENSOR_STICKS} all {STUCK_COLUMN} sensors stick")
        self.marks["the sensors stick"] = _moment(SENSOR_STICKS)
        self.report(END - dt.timedelta(days=1))
        self.marks["blocked"] = self.client.now
        wait_for(self._is_blocked, "the sensor to refuse training on broken data", TOLD_WITHIN_S, 0.5)
        _say(f"     The sensor: {self._decisions()[-1]['reason']}")

    def _is_logged(self) -> bool:
        from mlplatform.monitoring import read_predictions

        return len(read_predictions(self.settings, EXPERIMENT)) >= len(self.client.values)

    def _is_swapped(self) -> bool:
        self.client.ask()
        return self.client.version > 1

    def _is_blocked(self) -> bool:
        decisions = self._decisions()
        return bool(decisions) and decisions[-1]["outcome"] == "blocked"

    def _decisions(self) -> list[dict[str, object]]:
        from mlplatform.monitoring.retraining import read_decisions

        return read_decisions(self.settings, EXPERIMENT)


def main() -> int:
    """Run the demo and return the exit status."""
    started = time.monotonic()
    folder = Settings.from_env().home / "demo-drift"
    plant = Plant.build(folder)
    try:
        with hook(lambda title: _say(f"     told: {title}")) as alerts:
            _play(plant, alerts.url, lambda: f"{EXPERIMENT}: the data are broken" in alerts.told)
    except DemoError as error:
        _say(f"\nThe demo stopped: {error}")
        return 1
    _say(f"Done in {time.monotonic() - started:.0f} s.")
    return 0


def _play(plant: Plant, alert_url: str, is_told: Callable[[], bool]) -> None:
    token, port = secrets.token_hex(16), free_port()
    environment = plant.environment(os.environ) | {
        "MLPLATFORM_ADMIN_TOKEN": token,
        "MLPLATFORM_ALERT_URLS": alert_url,
        "MLPLATFORM_SERVING_URL": f"http://127.0.0.1:{port}",
        "MLPLATFORM_POLL_S": "1",
    }
    begin = dt.datetime.combine(TRAINED_UNTIL, dt.time(), dt.UTC)
    plant.happened(begin)
    days = (TRAINED_UNTIL - START).days
    _say(f"1/4  Training on the plant's first {days} days; then a server and the daemon")
    run_job(f"train_{EXPERIMENT}", environment, plant.folder / "train.log")
    with (
        server(environment, port, plant.folder / "serve.log") as url,
        daemon(environment, plant.folder / "daemon.log"),
    ):
        client = Client(plant, url, token, begin)
        demo = Demo(plant, environment, client)
        demo.first_act()
        demo.second_act()
        wait_for(is_told, "the alert about broken data", TOLD_WITHIN_S)
        client.ask()
        _say("\n4/4  What came out")
        _conclude(demo)


def _conclude(demo: Demo) -> None:
    from mlplatform.monitoring import read_reports
    from mlplatform.registry.pairs import PRODUCTION, PairStore

    client = demo.client
    production = PairStore(demo.settings).resolve(EXPERIMENT, PRODUCTION).version
    outcome = client.outcome()
    reports = read_reports(demo.settings, EXPERIMENT)
    references = {each.pair_version: each.errors.reference for each in reports if each.errors.reference is not None}
    periods = {
        "before the failure": outcome[outcome["day"] < _moment(COOLING_FAILS)],
        "failed, version 1": outcome[(outcome["day"] >= _moment(COOLING_FAILS)) & (outcome["version"] == 1)],
        "failed, version 2": outcome[(outcome["version"] == 2) & (outcome["day"] < _moment(SENSOR_STICKS))],
    }
    for name, part in periods.items():
        _say(f"     {name.ljust(20)} error {part['error'].mean():5.2f} K   coverage {part['covered'].mean():4.0%}")
    _say(f"     {client.answered} requests, {len(client.failed)} failed; version {production} is in production")
    path = draw(outcome, demo.marks, references, demo.plant.folder / "demo-drift.png")
    _say(f"     The picture: {path}")
    if client.failed:
        raise DemoError(f"a request failed: {client.failed[0]}")
    if production != 2:
        raise DemoError(f"version {production} is in production, not 2")


def _moment(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
