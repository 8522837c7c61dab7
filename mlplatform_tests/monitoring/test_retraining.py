"""The retrain policy: k of n reports, once per cause, with pauses and limits; and the journal of its decisions."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mlplatform.config import DriftConfig, RetrainConfig, apply_versions, load_experiment
from mlplatform.monitoring.kept_reports import write_report
from mlplatform.monitoring.report import DriftReport, ErrorDrift, FeatureDrift, QualityBreak
from mlplatform.monitoring.retraining.__main__ import main
from mlplatform.monitoring.retraining.attempts import Attempts
from mlplatform.monitoring.retraining.facts import ANY_FEATURE, Inputs, ReportFacts, RunFacts, named
from mlplatform.monitoring.retraining.journal import TAIL_BYTES, Journal, Recorded
from mlplatform.monitoring.retraining.policy import RetrainDecision, causes_on, decide_retrain
from mlplatform.monitoring.retraining.replay import replay_policy
from mlplatform.settings import Settings
from mlplatform.testing.drift_reports import yard_report

NOW = dt.datetime(2026, 3, 10, 12, tzinfo=dt.UTC)
WEEK = 168.0
ERRORS, LOAD, OIL = "errors", "feature:load_pu", "feature:top_oil_c"


def policy(cooldown_hours: float = 24, **retrain: Any) -> DriftConfig:
    return DriftConfig(cooldown_hours=cooldown_hours, retrain=RetrainConfig(**retrain))


def replace_steps(given: DriftConfig, recent_steps: int) -> DriftConfig:
    return given.model_copy(update={"recent_steps": recent_steps})


def day(number: float) -> dt.datetime:
    return NOW + dt.timedelta(days=number)


def report(number: float, *causes: str, **values: Any) -> ReportFacts:
    """Return what the report of a day said; without anything in it, that all is well."""
    facts: dict[str, Any] = {
        "created_at": day(number).isoformat(),
        "data_until": day(number).isoformat(),
        "pair_version": 1,
        "split_version": "fleet_v1",
        "causes": causes,
        "suspects": tuple(cause for cause in causes if cause != ERRORS),
        "error_ratio": 2.0 if ERRORS in causes else 1.0,
    }
    return ReportFacts(**facts | values)


def decide(
    *reports: ReportFacts,
    runs: tuple[RunFacts, ...] = (),
    by: DriftConfig | None = None,
    now: dt.datetime | None = None,
    **values: Any,
) -> RetrainDecision:
    inputs = Inputs("fleet_xgboost", reports, runs, **{"window_hours": WEEK, **values})
    last = dt.datetime.fromisoformat(reports[-1].created_at) if reports else NOW
    return decide_retrain(inputs, by or policy(), now or last)


def run_of(decision: RetrainDecision, about: ReportFacts, state: Any = "succeeded", **values: Any) -> RunFacts:
    """Return the run that a decision asked for, made from a report."""
    facts: dict[str, Any] = {
        "run_id": f"run-{decision.request}-{decision.attempt}",
        "state": state,
        "created_at": about.created_at,
        "ended_at": None if state == "open" else about.created_at,
        "request": decision.request,
        "attempt": decision.attempt,
        "causes": decision.causes,
        "pair_version": about.pair_version,
        "data_until": about.data_until,
        "rows": about.rows,
    }
    return RunFacts(**facts | values)


CONFIRMED = (report(0, ERRORS), report(1, ERRORS))


def test_without_a_report_or_drift_nothing_happens() -> None:
    assert decide().outcome == "quiet"
    assert decide(report(0)).outcome == "quiet"


def test_k_of_n_reports_have_to_show_it() -> None:
    assert decide(report(0, ERRORS)).outcome == "unconfirmed"
    assert decide(report(0, ERRORS), report(1, error_ratio=1.3), report(2, ERRORS)).outcome == "train"
    # The first of them has left the window of three.
    blinks = (report(0, ERRORS), report(1, error_ratio=1.3), report(2, error_ratio=1.3), report(3, ERRORS))
    assert decide(*blinks).outcome == "unconfirmed"
    assert decide(report(0, ERRORS), by=policy(confirm=1, reports=1)).outcome == "train"


def test_reports_on_the_same_rows_are_one_report() -> None:
    again = replace(report(0, ERRORS), created_at=day(1).isoformat())
    assert decide(report(0, ERRORS), again).outcome == "unconfirmed"
    # Rows without times: those of one day.
    assert decide(report(0, ERRORS), again, window_hours=None).outcome == "train"
    soon = replace(report(0, ERRORS), created_at=day(0.1).isoformat())
    assert decide(report(0, ERRORS), soon, window_hours=None).outcome == "unconfirmed"


def test_a_cause_stays_on_between_the_thresholds_and_goes_off_below_the_lower_one() -> None:
    def on(*ratios: float) -> tuple[str, ...]:
        tail = [report(2 + number, error_ratio=ratio) for number, ratio in enumerate(ratios)]
        return causes_on(Inputs("x", (*CONFIRMED, *tail), (), WEEK), policy())

    assert on(1.4, 1.4, 1.4, 1.4) == (ERRORS,)
    assert on(1.0) == (ERRORS,)
    assert on(1.0, 1.0) == ()
    assert on(1.0, 1.4, 1.0) == (ERRORS,)
    assert on(1.0, 1.0, 1.4) == ()
    # Too few predictions say nothing.
    unknown = [report(2 + number, error_ratio=None) for number in range(4)]
    assert causes_on(Inputs("x", (*CONFIRMED, *unknown), (), WEEK), policy()) == (ERRORS,)


def test_a_feature_under_suspicion_is_not_clear() -> None:
    shown = (report(0, LOAD), report(1, LOAD))
    suspected = [report(2 + number, suspects=(LOAD,)) for number in range(3)]
    clear = [report(2 + number) for number in range(2)]
    assert causes_on(Inputs("x", (*shown, *suspected), (), WEEK), policy()) == (LOAD,)
    assert causes_on(Inputs("x", (*shown, *clear), (), WEEK), policy()) == ()


def test_drift_of_the_data_alone_warns_unless_configured() -> None:
    shown = (report(0, LOAD, OIL), report(1, LOAD, OIL))
    warned = decide(*shown)
    assert (warned.outcome, warned.causes) == ("warned", (LOAD, OIL))
    assert decide(*shown, by=policy(triggers=("errors", "features"))).outcome == "train"
    both = decide(report(0, LOAD, ERRORS), report(1, LOAD, ERRORS))
    assert (both.outcome, both.causes) == ("train", (LOAD, ERRORS))


def test_broken_data_block_whatever_has_drifted_and_say_nothing_afterwards() -> None:
    blocked = decide(*CONFIRMED, report(2, ERRORS, broken=("stuck:load_pu",)))
    assert blocked.outcome == "blocked"
    assert "stuck:load_pu" in blocked.reason
    # The report on broken data neither confirms nor clears.
    assert decide(report(0, ERRORS), report(1, ERRORS, broken=("unit:x",)), report(2)).outcome == "quiet"


def test_a_report_about_another_pair_or_a_past_time_asks_for_nothing() -> None:
    assert decide(*CONFIRMED, production=2).outcome == "outdated"
    assert decide(*CONFIRMED, production=1).outcome == "train"
    assert decide(*CONFIRMED, now=day(1 + 31)).outcome == "outdated"
    assert decide(report(0, ERRORS), report(1, ERRORS, pair_version=2)).outcome == "unconfirmed"


@pytest.mark.parametrize(
    ("split_version", "data_until", "expected"),
    [
        ("fleet_v1", "2026-02-28T23:00:00+00:00", "fleet_v1@20260228T2300"),
        ("fleet_v1@20250101T0000", "2026-02-28T23:00:00+00:00", "fleet_v1@20260228T2300"),
        ("fleet_v1", "2026-03-01T01:30:00+02:00", "fleet_v1@20260228T2330"),
    ],
)
def test_the_split_version_is_one_the_experiment_accepts(
    tmp_path: Path, split_version: str, data_until: str, expected: str
) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    drifted = report(0, ERRORS, split_version=split_version, data_until=data_until)
    version = decide(drifted, by=policy(confirm=1)).split_version
    assert version == expected
    overrides = apply_versions("fleet_xgboost", {"split_version": version}, settings)
    assert load_experiment("fleet_xgboost", overrides, settings).split.version_id == expected


def test_the_same_inputs_make_the_same_request_and_others_another() -> None:
    first, again = decide(*CONFIRMED), decide(*CONFIRMED, now=day(1.5))
    assert (first.request, first.attempt) == (again.request, again.attempt)
    assert decide(*CONFIRMED, report(2, ERRORS)).request != first.request


def test_one_run_at_a_time_whoever_launched_it() -> None:
    by_hand = RunFacts("by-hand", "open", day(1).isoformat())
    waits = decide(*CONFIRMED, runs=(by_hand,))
    assert waits.outcome == "wait"
    assert "by-hand" in waits.reason


def test_a_cause_is_done_when_its_run_succeeded_until_the_data_are_new() -> None:
    first = decide(*CONFIRMED)
    done = run_of(first, CONFIRMED[-1])
    later = [report(1 + number, ERRORS) for number in range(1, 7)]
    again = decide(*CONFIRMED, *later, runs=(done,))
    assert again.outcome == "done"
    assert done.run_id in again.reason
    # A week later no row of the window is one that the run had seen.
    assert decide(*CONFIRMED, *later, report(8, ERRORS), runs=(done,)).outcome == "train"
    assert decide(*CONFIRMED, report(5, ERRORS), runs=(done,), by=policy(new_data=0.5)).outcome == "train"
    # Another champion's errors are another cause.
    new_pair = [report(1 + number, ERRORS, pair_version=2) for number in range(1, 4)]
    assert decide(*CONFIRMED, *new_pair, runs=(done,), by=policy(cooldown_hours=0)).outcome == "train"


def test_a_cause_expires() -> None:
    first = decide(*CONFIRMED, window_hours=9000.0)
    done = run_of(first, CONFIRMED[-1])
    later = [report(25 + number, ERRORS) for number in range(1, 3)]
    assert decide(*CONFIRMED, *later, runs=(done,), window_hours=9000.0).outcome == "done"
    later = [report(31 + number, ERRORS) for number in range(1, 3)]
    assert decide(*CONFIRMED, *later, runs=(done,), window_hours=9000.0).outcome == "train"


TIMELESS = "2000-01-01T00:00:00+00:00"


def table(number: float, *causes: str, **values: Any) -> ReportFacts:
    """Return what the report of a day said of a table without times."""
    return report(number, *causes, **{"data_until": TIMELESS, "rows": 1000, **values})


def key(decision: RetrainDecision) -> tuple[str, int]:
    assert decision.asks, decision
    return decision.request, decision.attempt


def test_what_is_forgotten_is_asked_for_by_a_name_of_its_own() -> None:
    seen: set[tuple[str, int]] = set()
    runs: tuple[RunFacts, ...] = ()
    # Three months of the same drift of the same rows, and no run that mends it.
    for number in range(1, 92):
        shown = (table(number - 1, ERRORS), table(number, ERRORS))
        decision = decide(*shown, runs=runs, window_hours=None)
        if not decision.asks:
            assert decision.outcome == "done"
            continue
        again = decide(*shown, runs=runs, window_hours=None, now=day(number + 0.2))
        assert key(again) == key(decision)
        assert key(decision) not in seen
        seen.add(key(decision))
        runs = (run_of(decision, shown[-1], run_id=f"run-{number}"), *runs)
    assert [run.run_id for run in runs] == ["run-63", "run-32", "run-1"]


def test_what_was_given_up_is_tried_anew_when_it_is_forgotten() -> None:
    by = policy(max_per_day=9, max_retries=1)
    runs: tuple[RunFacts, ...] = ()
    launched: list[tuple[float, str, int]] = []
    for hour in range(24, 24 * 63):
        number = hour / 24
        shown = (table(hour // 24 - 1, ERRORS), table(hour // 24, ERRORS))
        decision = decide(*shown, runs=runs, by=by, window_hours=None, now=day(number))
        if decision.asks:
            launched.append((number, *key(decision)))
            at = day(number).isoformat()
            values = {"run_id": f"run-{hour}", "created_at": at, "ended_at": at, "rows": 1000}
            runs = (run_of(decision, shown[-1], "failed", **values), *runs)
        else:
            assert decision.outcome in ("gave_up", "wait")
    # Two tries a month, and never one try of a request that is half forgotten.
    assert [attempt for _, _, attempt in launched] == [1, 2, 1, 2, 1, 2]
    assert [int(number) for number, _, _ in launched] == [1, 1, 31, 31, 61, 61]
    assert len({(request, attempt) for _, request, attempt in launched}) == 6
    assert len({request for _, request, _ in launched}) == 3


def test_rows_that_were_added_to_a_table_are_new_data() -> None:
    by = replace_steps(policy(cooldown_hours=0), 100)
    shown = (table(0, ERRORS), table(1, ERRORS))
    first = decide(*shown, by=by, window_hours=None)
    done = run_of(first, shown[-1], rows=1000)
    for added, outcome in ((0, "done"), (99, "done"), (100, "train")):
        more = table(2, ERRORS, rows=1000 + added)
        assert decide(*shown, more, runs=(done,), by=by, window_hours=None).outcome == outcome
    assert key(decide(*shown, more, runs=(done,), by=by, window_hours=None)) != key(first)
    half = replace_steps(policy(cooldown_hours=0, new_data=0.5), 100)
    assert decide(*shown, table(2, ERRORS, rows=1050), runs=(done,), by=half, window_hours=None).outcome == "train"
    # Rows that were taken away are none that are new.
    assert decide(*shown, table(2, ERRORS, rows=10), runs=(done,), by=by, window_hours=None).outcome == "done"
    # A run of an earlier version does not say how many there were.
    unknown = replace(done, rows=None)
    assert decide(*shown, more, runs=(unknown,), by=by, window_hours=None).outcome == "done"


def test_a_table_without_times_gets_a_reference_set_of_the_time_of_its_report() -> None:
    drifted = table(0, ERRORS, split_version="fleet_v1@20000101T0000")
    asked = decide(drifted, by=policy(confirm=1), window_hours=None, now=day(0.5))
    assert asked.split_version == f"fleet_v1@{NOW:%Y%m%dT%H%M}"
    timed = report(0, ERRORS, data_until=day(-3).isoformat())
    asked = decide(timed, by=policy(confirm=1), window_hours=None)
    assert asked.split_version == f"fleet_v1@{day(-3):%Y%m%dT%H%M}"


def test_another_feature_is_another_cause() -> None:
    eager = policy(triggers=("errors", "features"))
    shown = (report(0, LOAD), report(1, LOAD))
    done = run_of(decide(*shown, by=eager), shown[-1])
    assert decide(*shown, report(2, LOAD), report(3, LOAD), runs=(done,), by=eager).outcome == "done"
    wider = decide(*shown, report(2, LOAD, OIL), report(3, LOAD, OIL), runs=(done,), by=eager)
    assert (wider.outcome, wider.causes) == ("train", (LOAD, OIL))


def test_a_canceled_run_is_a_persons_word() -> None:
    canceled = run_of(decide(*CONFIRMED), CONFIRMED[-1], "canceled")
    assert decide(*CONFIRMED, report(3, ERRORS), runs=(canceled,)).outcome == "done"


def test_a_failed_run_does_not_burn_its_cause_it_is_tried_again_and_then_given_up() -> None:
    first = decide(*CONFIRMED)
    failed = [run_of(first, CONFIRMED[-1], "failed")]
    for attempt, minutes in ((2, 30), (3, 60)):
        ended = dt.datetime.fromisoformat(failed[0].ended_at or "")
        early = decide(
            *CONFIRMED, runs=tuple(failed), now=ended + dt.timedelta(minutes=minutes - 1), by=policy(max_per_day=9)
        )
        assert early.outcome == "wait"
        ready = ended + dt.timedelta(minutes=minutes)
        again = decide(*CONFIRMED, runs=tuple(failed), now=ready, by=policy(max_per_day=9))
        assert (again.outcome, again.request, again.attempt) == ("retry", first.request, attempt)
        values = {"created_at": ready.isoformat(), "ended_at": ready.isoformat()}
        failed.insert(0, run_of(again, CONFIRMED[-1], "failed", **values))
    over = decide(*CONFIRMED, runs=tuple(failed), now=day(1.9))
    assert over.outcome == "gave_up"
    assert "3 runs" in over.reason
    # New data are a new reason.
    assert decide(*CONFIRMED, report(9, ERRORS), runs=tuple(failed)).outcome == "train"


def test_cooldown_and_daily_budget() -> None:
    first = run_of(decide(*CONFIRMED), CONFIRMED[-1])
    other = [report(1 + number / 10, ERRORS, pair_version=2) for number in range(1, 4)]
    cool = decide(*other, runs=(first,))
    assert cool.outcome == "wait"
    assert "the cool-down is 24 h" in cool.reason
    hot = policy(cooldown_hours=0, max_per_day=2)
    assert decide(*other, runs=(first,), by=hot).outcome == "train"
    second = replace(first, run_id="second")
    spent = decide(*other, runs=(first, second), by=hot)
    assert spent.outcome == "wait"
    assert "2 are the limit" in spent.reason
    # Runs that a person launched cost no budget.
    by_hand = RunFacts("by-hand", "succeeded", day(1).isoformat(), day(1).isoformat())
    assert decide(*other, runs=(by_hand,) * 5, by=hot).outcome == "train"


def test_many_features_are_kept_short_and_are_all_covered() -> None:
    many = [f"feature:sensor_{number}" for number in range(1000)]
    short = named([*many, ERRORS])
    assert len(short) == 42
    assert ANY_FEATURE in short
    assert RunFacts("run", "failed", "", causes=short).covers(many)
    assert not RunFacts("run", "failed", "", causes=(ERRORS,)).covers(many)


@given(st.integers(0, 10_000), st.floats(0.001, 1e6))
def test_pauses_grow_and_have_an_end(failed: int, pause: float) -> None:
    pauses = Attempts(3, pause, longest_s=3600)
    waited = (pauses.ready_at(failed + 1, NOW) - NOW).total_seconds()
    assert 0 <= waited <= 3600
    assert waited <= (pauses.ready_at(failed + 2, NOW) - NOW).total_seconds()


def test_thresholds_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValidationError, match="confirm is 3, more than reports, 2"):
        RetrainConfig(confirm=3, reports=2)
    with pytest.raises(ValidationError, match="on and off at once"):
        DriftConfig(error_ratio=1.2, retrain=RetrainConfig(clear_error_ratio=1.3))
    assert DriftConfig(error_ratio=1.1).clear_error_ratio == pytest.approx(1.05)


def test_the_facts_of_a_report() -> None:
    given = DriftReport(
        experiment="fleet_xgboost",
        pair_version=3,
        split_version="fleet_v1",
        data_until=NOW.isoformat(),
        features=(FeatureDrift("load_pu", 2.0, 1.0), FeatureDrift("oil", 0.0, 1.0, status="suspected")),
        errors=ErrorDrift(100, 3.0, 2.0, 1.4),
        created_at=NOW.isoformat(),
        quality=(QualityBreak("stuck", "ambient_c", "850.0 for 30 steps"),),
        rows=4000,
    )
    facts = ReportFacts.of(given)
    assert facts.causes == (LOAD, ERRORS)
    assert facts.suspects == (LOAD, "feature:oil")
    assert facts.error_ratio == pytest.approx(1.5)
    assert facts.broken == ("stuck:ambient_c",)
    assert facts.rows == 4000


def records(*lines: tuple[float, tuple[ReportFacts, ...], tuple[RunFacts, ...]]) -> list[Recorded]:
    found = []
    for moment, reports, runs in lines:
        inputs = Inputs("fleet_xgboost", reports, runs, WEEK)
        found.append(Recorded(day(moment), decide_retrain(inputs, policy(), day(moment)), inputs, policy()))
    return found


def history() -> list[Recorded]:
    """A confirmed cause, its run, and a week of the same."""
    seen = CONFIRMED
    done = run_of(decide(*CONFIRMED), CONFIRMED[-1])
    later = (*seen, report(2, ERRORS))
    return records((0, seen[:1], ()), (1, seen, ()), (2, later, (done,)), (9, (*later, report(9, ERRORS)), (done,)))


def test_the_journal_keeps_decisions_whole_and_once(tmp_path: Path) -> None:
    journal = Journal(Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)}), "fleet_xgboost")
    assert journal.last() is None
    assert list(journal.read()) == []
    kept = history()
    assert [journal.append(record) for record in kept] == [True] * 4
    assert not journal.append(replace(kept[-1], at=day(9.5)))
    assert list(journal.read()) == kept
    assert journal.last() == kept[-1]
    assert {path.name for path in journal.folder.glob("*.jsonl")} == {"decisions-2026-03.jsonl"}


def test_a_torn_line_costs_that_line_alone(tmp_path: Path) -> None:
    journal = Journal(Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)}), "fleet_xgboost")
    first, second, *_ = history()
    journal.append(first)
    path = journal.folder / "decisions-2026-03.jsonl"
    path.write_text(path.read_text() + second.to_line()[:100])
    assert journal.last() == first
    assert journal.append(second)
    assert list(journal.read()) == [first, second]


def wide(faults: int) -> Recorded:
    """Return a decision on two months of reports that find many columns broken."""
    broken = tuple(f"missing:sensor_{number:04d}_temperature" for number in range(faults))
    return records((60, tuple(report(number, broken=broken) for number in range(60)), ()))[0]


def test_what_is_broken_is_stored_by_its_first_names_and_a_count(tmp_path: Path) -> None:
    assert len(wide(1000).to_line()) < 1.1 * len(wide(42).to_line())
    assert len(wide(41).inputs.reports[0].broken) == 41
    few = wide(500).inputs.reports[0].broken
    assert (len(few), few[-1]) == (41, "460 more")
    assert wide(500).decision.outcome == "blocked"
    assert wide(500).decision.reason.count("missing:") == 40
    journal = Journal(Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)}), "fleet_xgboost")
    record = wide(500)
    assert [journal.append(replace(record, at=day(60 + number / 24))) for number in range(4)] == [True, *[False] * 3]
    assert list(journal.read()) == [record]
    (replayed,) = replay_policy(journal.read(), policy(), runs="recorded")
    assert replayed.now == replayed.then


def test_the_newest_decision_is_found_however_long_its_line_is(tmp_path: Path) -> None:
    journal = Journal(Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)}), "fleet_xgboost")
    short, record = history()[0], wide(41)
    # As earlier versions stored it, with every name.
    values = json.loads(record.to_line())
    for each in values["inputs"]["reports"]:
        each["broken"] = [f"missing:sensor_{number:04d}" for number in range(1500)]
        del each["rows"]
    long = json.dumps(values)
    assert len(long) > 4 * TAIL_BYTES
    path = journal.folder / "decisions-2026-03.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(f"{short.to_line()}\n{long}\n")
    found = journal.last()
    assert found is not None
    assert found.inputs.reports[0].broken[-1] == "1460 more"
    assert not journal.append(found)
    assert [len(each.inputs.reports) for each in journal.read()] == [1, 60]
    # A torn line, and one that is no text, after it.
    path.write_bytes(path.read_bytes() + b"\xff\xfe\n" + long[:-5].encode())
    assert journal.last() == found
    assert len(list(journal.read())) == 2


def test_a_replay_by_the_same_policy_decides_as_it_did_and_another_one_trains_otherwise() -> None:
    kept = history()
    same = replay_policy(kept, policy(), runs="recorded")
    assert all(each.now == each.then for each in same)
    assert [each.now.outcome for each in replay_policy(kept, policy())] == ["unconfirmed", "train", "done", "train"]
    eager = replay_policy(kept, policy(confirm=1, new_data=0.1, cooldown_hours=0))
    assert [each.now.outcome for each in eager] == ["train"] * 4
    never = replay_policy(kept, policy(triggers=()))
    assert not any(each.now.asks for each in never)


def test_the_command_replays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLPLATFORM_HOME", str(tmp_path))
    journal = Journal(Settings.from_env(), "fleet_xgboost")
    for record in history():
        journal.append(record)
    assert main(["fleet_xgboost", "drift.retrain.confirm=1"]) == 0
    assert "4 decisions; runs asked for then: 2, by this policy: 2" in capsys.readouterr().out
    assert main(["fleet_xgboost", "drift.retrain.confirm=0"]) == 1
    assert main(["nothing_such"]) == 1


def test_what_a_wrong_clock_wrote_neither_asks_nor_holds_up_anything() -> None:
    by = policy(cooldown_hours=48, max_retries=3, max_per_day=1)
    ahead = report(3650, broken=("stuck:load",))
    assert decide(*CONFIRMED, ahead, now=day(1)).outcome == "train"
    assert decide(ahead, now=day(1)).outcome == "quiet"
    # Clocks may differ by a day.
    assert decide(*CONFIRMED, report(1.5, broken=("stuck:load",)), now=day(1)).outcome == "blocked"
    asked = decide(*CONFIRMED)
    future = day(3650).isoformat()
    failed = run_of(asked, CONFIRMED[-1], "failed", created_at=future, ended_at=future)
    assert decide(*CONFIRMED, runs=(failed,), by=by).outcome == "retry"
    # A run of another request does not cool down until then, nor does it count as one of today.
    other = replace(failed, state="succeeded", request="other", data_until=day(-100).isoformat())
    assert decide(*CONFIRMED, runs=(other,), by=by).outcome == "train"


def test_reports_ahead_of_their_time_do_not_come_back_from_the_journal(tmp_path: Path) -> None:
    settings = Settings.from_env({"MLPLATFORM_HOME": str(tmp_path)})
    journal = Journal(settings, "fleet_xgboost")
    ahead = replace(report(3650, broken=("stuck:load",)), day=day(3650).date().isoformat())
    inputs = Inputs("fleet_xgboost", (*CONFIRMED, ahead), window_hours=WEEK)
    recorded = Recorded(day(1), decide_retrain(inputs, policy(), day(1)), inputs, policy())
    assert journal.append(recorded)
    (journal.folder / f"decisions-{NOW:%Y-%m}.jsonl").open("ab").write(b"\xff\xfe\n")
    assert list(journal.read()) == [recorded]
    assert [each.now.outcome for each in replay_policy(journal.read(), policy())] == ["train"]
    values = {"created_at": day(1).isoformat(), "data_until": day(1).isoformat(), "day": day(1).date().isoformat()}
    write_report(replace(yard_report(**values), experiment="fleet_xgboost"), settings)
    assert max(each.created_at for each in journal.recent_reports(settings, day(1))) == day(1).isoformat()
