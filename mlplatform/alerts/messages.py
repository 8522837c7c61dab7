"""What each alert says. Names, versions and figures go in; rows, errors' texts and addresses with passwords do not."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from urllib.parse import quote

from mlplatform.alerts.alert import Alert
from mlplatform.settings import Settings

NAMED = 10


def drifted(settings: Settings, experiment: str, causes: Sequence[str], pair_version: int, until: str) -> Alert:
    """Return the alert of a report that found drift."""
    return Alert(
        "drift",
        experiment,
        f"{experiment}: drift",
        f"Drift in the data up to {until}, against what version {pair_version} was trained on: {_listed(causes)}.",
        identity=f"{pair_version} {' '.join(sorted(causes))}",
        links=_report(settings, experiment),
    )


def broken_data(settings: Settings, experiment: str, breaks: Sequence[str], until: str) -> Alert:
    """Return the alert of a report that found broken data."""
    return Alert(
        "quality_break",
        experiment,
        f"{experiment}: the data are broken",
        f"In the data up to {until}: {_listed(breaks)}. Nothing is retrained or promoted until a report finds them "
        "mended.",
        identity=" ".join(sorted(breaks)),
        links=_report(settings, experiment),
    )


def coverage_lost(settings: Settings, experiment: str, pair_version: int, found: float, nominal: float) -> Alert:
    """Return the alert of prediction intervals that no longer cover what they are meant to."""
    return Alert(
        "coverage_lost",
        experiment,
        f"{experiment}: intervals cover too little",
        f"The intervals of version {pair_version} covered {found:.0%} of what came true; {nominal:.0%} was meant.",
        identity=str(pair_version),
        links=_report(settings, experiment),
    )


def requested(settings: Settings, experiment: str, causes: Sequence[str], request: str, attempt: int) -> Alert:
    """Return the alert of a training run that drift asked for."""
    again = "" if attempt == 1 else f", try {attempt}"
    return Alert(
        "retraining_requested",
        experiment,
        f"{experiment}: training again{again}",
        f"A training run was asked for because of {_listed(causes)}.",
        identity=f"{request} {attempt}",
        links={"runs": f"{settings.dagster_url}/runs?q[]=job:train_{experiment}", **_report(settings, experiment)},
    )


def gave_up(settings: Settings, experiment: str, causes: Sequence[str], request: str, run_id: str) -> Alert:
    """Return the alert of a drift retraining whose every try failed."""
    return Alert(
        "retraining_failed",
        experiment,
        f"{experiment}: training again failed",
        f"Every training run for {_listed(causes)} failed. Nothing is tried any more until there are new data, or "
        f"this is forgotten (drift.retrain.expire_hours); mend the cause and launch train_{experiment}.",
        identity=request,
        links={"last run": _run(settings, run_id)} if run_id else {},
    )


def promoted(
    settings: Settings, experiment: str, version: int, replaced: int | None, reason: str, run: str = ""
) -> Alert:
    """Return the alert of a new production pair."""
    before = "the first one" if replaced is None else f"after version {replaced}"
    return Alert(
        "promoted",
        experiment,
        f"{experiment}: version {version} is in production",
        f"Version {version} is in production, {before}: {reason}.",
        identity=f"{version} {_occasion(run)}",
        links={**_run_link(settings, run), "gate": _asset(settings, experiment, "production_alias")},
    )


def refused(settings: Settings, experiment: str, version: int, outcome: str, reason: str, run: str) -> Alert:
    """Return the alert of a candidate that stays out of production."""
    return Alert(
        "refused",
        experiment,
        f"{experiment}: version {version} was not promoted",
        f"Version {version} was not promoted ({outcome}): {reason}.",
        identity=f"{version} {outcome} {run}",
        links={"run": _run(settings, run), "check": f"{_asset(settings, experiment, 'registered_pair')}?view=checks"},
    )


def rolled_back(settings: Settings, experiment: str, version: int, replaced: int | None, run: str = "") -> Alert:
    """Return the alert of an earlier pair that is in production again."""
    return Alert(
        "rolled_back",
        experiment,
        f"{experiment}: back to version {version}",
        f"Version {version} is in production again, after version {replaced or 'none'}.",
        identity=f"{version} {_occasion(run)}",
        links=_run_link(settings, run),
    )


def run_failed(settings: Settings, job: str, run: str, steps: Sequence[str], errors: Sequence[str]) -> Alert:
    """Return the alert of a run that failed.

    Parameters:
        steps, errors: keys of the steps that failed, and the classes of their errors; what an error says may hold rows.
    """
    found = f" in {_listed(steps)}" if steps else ""
    kind = f" with {_listed(errors)}" if errors else ""
    return Alert(
        "run_failed",
        job,
        f"{job} failed",
        f"Run {run} of {job} failed{found}{kind}; its page says why.",
        identity=run,
        links={"run": _run(settings, run)},
    )


def server_not_loaded(settings: Settings, experiment: str, served: int | None, code: str) -> Alert:
    """Return the alert of a server that cannot load the production pair.

    Parameters:
        served: the version that is still served; `None` if there is none.
        code: the stable name of what went wrong.
    """
    left = "Nothing is served" if served is None else f"Version {served} is still served"
    return Alert(
        "server_not_loaded",
        experiment,
        f"{experiment}: a server cannot load the production pair",
        f"A server could not load the production pair ({code}). {left}; the server's log says why.",
        identity=f"{served} {code}",
        links={"pair": _asset(settings, experiment, "production_alias")},
    )


def _report(settings: Settings, experiment: str) -> dict[str, str]:
    return {"report": _asset(settings, experiment, "drift_report")}


def _asset(settings: Settings, owner: str, asset: str) -> str:
    return f"{settings.dagster_url}/assets/{quote(owner)}/{asset}"


def _occasion(run: str) -> str:
    """Return what tells two promotions of a version apart: the run, or the time of what was done from a shell."""
    return run or dt.datetime.now(dt.UTC).isoformat()


def _run_link(settings: Settings, run: str) -> dict[str, str]:
    """Return the link to a run; without one, for what was done from a shell."""
    return {"run": _run(settings, run)} if run else {}


def _run(settings: Settings, run: str) -> str:
    return f"{settings.dagster_url}/runs/{quote(run)}"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")
