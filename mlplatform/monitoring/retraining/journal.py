"""Every retrain decision with its inputs, in files that are only ever appended to.

One JSON object per line, one file per month. A decision that differs from the one before in nothing but its time is not
written again, so that a look every minute costs nothing.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mlplatform.config import DriftConfig
from mlplatform.locks import FileLock
from mlplatform.monitoring.kept_reports import read_report, read_reports
from mlplatform.monitoring.retraining.facts import Inputs, ReportFacts
from mlplatform.monitoring.retraining.policy import RetrainDecision
from mlplatform.settings import Settings
from mlplatform.state_files import is_ahead, moment

# Reports that a decision looks back on; the longest `reports` of a policy is 30.
KEPT_REPORTS = 60
# The newest decision is looked for from the end of a file, at first in so many bytes.
TAIL_BYTES = 1 << 18

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recorded:
    """One decision, when it was made, from what and by which policy."""

    at: dt.datetime
    decision: RetrainDecision
    inputs: Inputs
    policy: DriftConfig

    def to_line(self) -> str:
        """Return the decision as one line of JSON."""
        values = {
            "at": self.at.isoformat(timespec="seconds"),
            "decision": asdict(self.decision),
            "inputs": self.inputs.to_json(),
            "policy": self.policy.model_dump(mode="json"),
        }
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def from_line(cls, line: str) -> Recorded:
        """Rebuild a decision from its line.

        Raises:
            ValueError, KeyError, TypeError: if it is none.
        """
        values = json.loads(line)
        decision = values["decision"]
        return cls(
            moment(values["at"]),
            RetrainDecision(**decision | {"causes": tuple(decision["causes"])}),
            Inputs.from_json(values["inputs"]),
            DriftConfig.model_validate(values["policy"]),
        )

    def is_like(self, other: Recorded) -> bool:
        """Return whether both came from the same inputs, by the same policy, to the same end."""
        mine, theirs = self.decision, other.decision
        same_end = (mine.outcome, mine.request, mine.attempt) == (theirs.outcome, theirs.request, theirs.attempt)
        return same_end and self.inputs == other.inputs and self.policy == other.policy


class Journal:
    """The decisions about one experiment."""

    def __init__(self, settings: Settings, experiment: str) -> None:
        self.experiment = experiment
        self.folder = settings.home / "monitoring" / experiment / "retraining"

    def append(self, record: Recorded) -> bool:
        """Write a decision; return whether it was news."""
        with FileLock(self.folder / "journal.lock"):
            last = self.last()
            if last is not None and last.is_like(record):
                return False
            path = self.folder / f"decisions-{record.at:%Y-%m}.jsonl"
            # A writer that was killed may have left half a line, which must not swallow this one.
            start = "" if _ends_line(path) else "\n"
            with path.open("a", encoding="utf-8") as file:
                file.write(f"{start}{record.to_line()}\n")
                file.flush()
                os.fsync(file.fileno())
        return True

    def read(self) -> Iterator[Recorded]:
        """Yield all decisions, oldest first; what cannot be read is left out with a warning."""
        for path in self._files():
            with path.open(encoding="utf-8", errors="replace") as file:
                yield from (record for line in file if (record := _parsed(line, path)) is not None)

    def last(self) -> Recorded | None:
        """Return the newest decision, or `None` if there is none yet."""
        for path in reversed(self._files()):
            for line in _newest_lines(path):
                record = _parsed(line, path)
                if record is not None:
                    return record
        return None

    def recent_reports(self, settings: Settings, now: dt.datetime | None = None) -> tuple[ReportFacts, ...]:
        """Return what recent reports say, oldest first: the last one of every day, and others that decisions have seen.

        Parameters:
            now: the present, which no report may be ahead of; by default the clock's.
        """
        now = now or dt.datetime.now(dt.UTC)
        newest = read_report(settings, self.experiment, now=now)
        if newest is None:
            return ()
        since = dt.date.fromisoformat(newest.about) - dt.timedelta(days=KEPT_REPORTS)
        last = self.last()
        seen = [each for each in (last.inputs.reports if last else ()) if each.day >= since.isoformat()]
        seen = [each for each in seen if not is_ahead(moment(each.created_at), now)]
        seen += [ReportFacts.of(each) for each in read_reports(settings, self.experiment, since, now=now)]
        ordered = sorted(dict.fromkeys(seen), key=lambda each: (each.day, moment(each.created_at)))
        return tuple(ordered[-KEPT_REPORTS:])

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob("decisions-*.jsonl"))


def _parsed(line: str, path: Path) -> Recorded | None:
    if not line.strip():
        return None
    try:
        return Recorded.from_line(line)
    except (ValueError, KeyError, TypeError) as error:
        logger.warning("%s: a line is not a decision and is left out: %s", path, error)
        return None


def _newest_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file from its end, however long they are, and read no more of it than is asked for."""
    with path.open("rb") as file:
        left, length, rest = file.seek(0, os.SEEK_END), TAIL_BYTES, b""
        while left:
            start = max(left - length, 0)
            file.seek(start)
            rest, *whole = (file.read(left - start) + rest).split(b"\n")
            yield from (line.decode(errors="replace") for line in reversed(whole))
            # What a line has so far is copied with every step back, so steps grow.
            left, length = start, 2 * length
        yield rest.decode(errors="replace")


def _ends_line(path: Path) -> bool:
    """Return whether what is appended to a file begins a line."""
    try:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError:  # it is not there, or empty
        return True


def read_decisions(settings: Settings, experiment: str) -> list[dict[str, Any]]:
    """Return the decisions about an experiment without their inputs, oldest first."""
    return [
        {"at": record.at.isoformat(timespec="seconds"), **asdict(record.decision)}
        for record in Journal(settings, experiment).read()
    ]
