"""What checks found about a registered pair, as it stands in the tags of the pair's version.

Here: the form of one finding, and what the findings of a pair say to someone who asks why it is not in production.
Not here: the checks, and who relies on them (`promotion`).
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields

PAIR_INTEGRITY, SERVING_PARITY = "pair_integrity", "serving_parity"
PROMOTION_GATE = "promotion_gate"
TAG_PREFIX = "check."
SUMMARY_LENGTH = 500


@dataclass(frozen=True)
class Evidence:
    """The result of one check.

    Attributes:
        summary: one sentence for people.
        basis: what the result holds for; the result is stale once any of these is different.
        at: when it was found, ISO 8601.
        figures: numbers behind the summary, by name.
    """

    passed: bool
    summary: str
    basis: Mapping[str, str] = field(default_factory=dict)
    at: str = field(default_factory=lambda: dt.datetime.now(dt.UTC).isoformat(timespec="seconds"))
    figures: Mapping[str, float] = field(default_factory=dict)

    def to_tag(self) -> str:
        """Return the value of the tag that keeps it."""
        values = {**asdict(self), "summary": self.summary[:SUMMARY_LENGTH]}
        if not self.figures:
            # Readers of earlier versions know no such field.
            del values["figures"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_tag(cls, text: str) -> Evidence:
        """Read what `to_tag` wrote, in this version of the package or another."""
        values, known = json.loads(text), {each.name for each in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})

    def changed(self, basis: Mapping[str, str]) -> list[str]:
        """Return the names of what is different now."""
        return sorted(key for key in {*basis, *self.basis} if basis.get(key) != self.basis.get(key))


def tag_name(check: str) -> str:
    """Return the name of the tag that keeps a check's result."""
    return TAG_PREFIX + check


def verdict(tags: Mapping[str, str]) -> str:
    """Say what kept the pair with these tags out of production, as the end of a sentence about its version."""
    refused, gate = last_refusal(tags), _found(tags, PROMOTION_GATE)
    if refused is not None:
        return refused
    if gate is None:
        return "has not been through the promotion gate"
    return f"passed the promotion gate ({gate.summary}), but nothing promoted it"


def has_passed(tags: Mapping[str, str]) -> bool:
    """Return whether a pair went through the gate and every check of it, and none refused it."""
    return last_refusal(tags) is None and _found(tags, PROMOTION_GATE) is not None


def last_refusal(tags: Mapping[str, str], since: dt.datetime | None = None) -> str | None:
    """Say which check, or that the gate, refused a pair; `None` if none did, or none after `since`."""
    for check in (PAIR_INTEGRITY, SERVING_PARITY, PROMOTION_GATE):
        evidence = _found(tags, check)
        if evidence is None or evidence.passed or (since and dt.datetime.fromisoformat(evidence.at) < since):
            continue
        if check == PROMOTION_GATE:
            return f"was refused by the promotion gate: {evidence.summary}"
        return f"failed the check {check}: {evidence.summary}"
    return None


def _found(tags: Mapping[str, str], check: str) -> Evidence | None:
    text = tags.get(tag_name(check))
    return None if text is None else Evidence.from_tag(text)
