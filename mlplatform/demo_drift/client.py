"""The client: time passes for it, rows arrive, forecasts are asked for, and it remembers how they came out."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlplatform.demo_drift.plant import ENTITIES, TARGET, Plant
from mlplatform.demo_drift.processes import DemoError, post

if TYPE_CHECKING:
    import pandas as pd

HOURS = 6


@dataclass
class Client:
    """Pushes rows and asks for forecasts through the server.

    Attributes:
        now: how far the plant's time has come, in UTC.
        answered, failed: requests for forecasts by how they ended.
        version: the version that answered last.
        values: one row per forecast value.
    """

    plant: Plant
    url: str
    token: str
    now: dt.datetime
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    version: int = 0
    values: list[dict[str, Any]] = field(default_factory=list)

    def live_until(self, day: dt.date) -> None:
        """Let time pass up to the beginning of a day: every six hours rows arrive, and a forecast is asked for."""
        end = dt.datetime.combine(day, dt.time(), dt.UTC)
        while self.now < end:
            later = self.now + dt.timedelta(hours=HOURS)
            rows = self.plant.between(self.now, later)
            status, answer = post(f"{self.url}/features/push", {"rows": rows}, self.token)
            if status != 200:
                raise DemoError(f"the server refused rows with status {status}: {answer}")
            self.now = later
            self.ask()
        self.plant.happened(self.now)

    def ask(self) -> None:
        """Ask for the forecast of every transformer."""
        status, answer = post(f"{self.url}/predict/feast/batch", {"entities": ENTITIES, "time_point": "now"})
        if status != 200 or answer.get("errors"):
            self.failed.append(f"{status}: {answer}")
            return
        self.answered += 1
        self.version = int(answer["version"])
        for forecast in answer["forecasts"]:
            interval = forecast.get("interval") or {}
            for step, time in enumerate(forecast["timestamps"]):
                self.values.append(
                    {
                        "entity": forecast["entity"],
                        "timestamp": time,
                        "value": forecast["values"][TARGET][step],
                        "lower": interval.get("lower", {}).get(TARGET, [None] * len(forecast["timestamps"]))[step],
                        "upper": interval.get("upper", {}).get(TARGET, [None] * len(forecast["timestamps"]))[step],
                        "version": self.version,
                    }
                )

    def outcome(self) -> pd.DataFrame:
        """Return, by day and version, the mean absolute error and how often the interval held the truth."""
        import pandas as pd

        asked = pd.DataFrame(self.values).drop_duplicates(["entity", "timestamp", "version"], keep="last")
        asked["timestamp"] = pd.to_datetime(asked["timestamp"], utc=True)
        truth = self.plant.truth.rename(columns={"transformer_id": "entity"})[["entity", "timestamp", TARGET]]
        joined = asked.merge(truth, on=["entity", "timestamp"])
        joined["error"] = (joined["value"] - joined[TARGET]).abs()
        joined["covered"] = (joined["lower"] <= joined[TARGET]) & (joined[TARGET] <= joined["upper"])
        joined["day"] = joined["timestamp"].dt.floor("D")
        return joined.groupby(["day", "version"], as_index=False)[["error", "covered"]].mean()
