"""A sequential test of the live error: it may be looked at every hour, for as long as a champion serves.

The null hypothesis is that the error of every block of time, given all before it, is expected to be at most a limit. A
bet on the opposite then gains nothing on average (Waudby-Smith & Ramdas, "Estimating means of bounded random variables
by betting", JRSS B 86, 2024): with errors cut at a multiple of the limit, each `1 + stake * (error / limit - 1)` is an
e-value, however the errors depend on each other. Started anew at every block and added up they are an e-detector (Shin,
Ramdas & Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", NEJSDS 2, 2024) of
Shiryaev-Roberts type: while the hypothesis holds, the mean number of blocks until it first reaches `a` is at least `a`,
whenever and as often as it is looked at.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mlplatform.settings import Settings
from mlplatform.state_files import moment, parsed, read_state
from mlplatform.storage import atomic_file

# Errors are cut at this multiple of the limit.
CUT = 5.0
# Stakes of the bets; the best is not known beforehand, so all are made and averaged. Below 1, no bet can lose all.
STAKES = (0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class ErrorTest:
    """The state of the test of one champion.

    Attributes:
        version: the champion.
        limit: the mean error that is not too large, in original units.
        until: end of the newest block that has been counted, ISO 8601; `None` before the first.
        blocks: how many have been counted.
        sums: the sum of the bets that were begun at every block so far, per stake.
    """

    version: int
    limit: float
    until: str | None = None
    blocks: int = 0
    sums: tuple[float, ...] = (0.0,) * len(STAKES)

    @property
    def evidence(self) -> float:
        """The e-detector: of at least `a`, it is reached by chance once in `a` blocks or more on average."""
        return float(np.mean(self.sums))

    def updated(self, errors: npt.NDArray[np.float64], until: str) -> ErrorTest:
        """Return the state after further blocks.

        Parameters:
            errors: of shape (blocks,), mean absolute errors in time order, in original units.
            until: end of the last block, ISO 8601.
        """
        sums = np.asarray(self.sums)
        for error in errors:
            gain = 1.0 + np.asarray(STAKES) * (min(float(error) / self.limit, CUT) - 1.0)
            # Beyond this nothing is decided any more, and a float would end.
            sums = np.minimum((sums + 1.0) * gain, 1e100)
        return replace(self, until=until, blocks=self.blocks + len(errors), sums=tuple(float(each) for each in sums))


def error_test_path(settings: Settings, experiment: str) -> Path:
    """Return where the state of an experiment's champion is kept."""
    return settings.home / "monitoring" / experiment / "error_test.json"


def read_error_test(settings: Settings, experiment: str) -> ErrorTest | None:
    """Return the state of the champion that was watched last, or None if there is none yet, or it is damaged.

    Without one the test is made again, from the first block of the champion that the table of forecast errors has.
    """
    otherwise = "the test of the live error is made again from the table of forecast errors; nothing needs to be done"
    return read_state(error_test_path(settings, experiment), _parsed, otherwise)


def _parsed(text: str) -> ErrorTest:
    """Return what a file says.

    Raises:
        ValueError: if it is none, or one of other stakes.
    """
    test = parsed(text, ErrorTest)
    if len(test.sums) != len(STAKES):
        raise ValueError(f"it has {len(test.sums)} sums; there are {len(STAKES)} stakes")
    if not np.isfinite([test.limit, *test.sums]).all():
        raise ValueError("its numbers are not finite")
    if test.until is not None:
        moment(test.until)
    return test


def write_error_test(test: ErrorTest, settings: Settings, experiment: str) -> None:
    """Keep the state of a champion."""
    path = error_test_path(settings, experiment)
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(asdict(test)))
