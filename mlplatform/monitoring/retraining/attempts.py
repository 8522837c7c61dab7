"""How often something that failed is tried again, and when: growing pauses, and an end."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass


@dataclass(frozen=True)
class Attempts:
    """Tries with pauses that double.

    Attributes:
        max_retries: tries after the first one; `None`: without an end.
        pause_s: seconds before the first of them.
        longest_s: seconds that no pause exceeds.
    """

    max_retries: int | None
    pause_s: float
    longest_s: float = 86_400.0

    def are_used_up(self, failed: int) -> bool:
        """Return whether nothing is tried any more after so many failures."""
        return self.max_retries is not None and failed > self.max_retries

    def ready_at(self, failed: int, last_ended: dt.datetime) -> dt.datetime:
        """Return when the next try may begin, after so many failures of which the last ended then."""
        # Beyond this power every pause is the longest one, and a float would overflow.
        pause = min(self.pause_s * 2.0 ** min(failed - 1, 60), self.longest_s)
        return last_ended + dt.timedelta(seconds=pause)
