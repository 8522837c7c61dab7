"""One alert: what it is about, what it says, and where to look."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from mlplatform.config import AlertEvent

# What stands before the @ of an address.
_CREDENTIALS = re.compile(r"(?<=://)[^/\s@]+@")
HIDDEN = "***"
# Shorter values are words that would make a text unreadable, and no secrets.
LEAST_SECRET = 6
LONGEST_TEXT = 2_000


@dataclass(frozen=True)
class Alert:
    """What people are told.

    Attributes:
        subject: the experiment, dataset or job that it is about.
        identity: what makes it the same alert as an earlier one about the same subject, such as the causes.
        text: sentences for people; names and figures, never rows of data.
        links: where to look, by what is there.
    """

    event: AlertEvent
    subject: str
    title: str
    text: str
    identity: str = ""
    links: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """The same for the same event of the same subject and identity."""
        text = json.dumps([self.event, self.subject, self.identity])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @property
    def body(self) -> str:
        """The text and the links."""
        return "\n".join([self.text[:LONGEST_TEXT], *(f"{name}: {address}" for name, address in self.links.items())])

    def without(self, secrets: Iterable[str]) -> Alert:
        """Return the alert with every secret, and every password in an address, made unreadable."""
        hidden = sorted({value for value in secrets if len(value) >= LEAST_SECRET}, key=len, reverse=True)

        def clean(text: str) -> str:
            for secret in hidden:
                text = text.replace(secret, HIDDEN)
            return _CREDENTIALS.sub(f"{HIDDEN}@", text)

        links = {name: clean(address) for name, address in self.links.items()}
        return Alert(self.event, self.subject, clean(self.title), clean(self.text), clean(self.identity), links)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)
