"""What becomes of rows that a request brings and that are not what training saw."""

from __future__ import annotations

from typing import Literal

from mlplatform.config.base import Frozen

Reaction = Literal["mark", "refuse"]


class RequestsConfig(Frozen):
    """What becomes of values in a request's rows that the pair can read, but training would not have kept or known.

    `missing` is about nulls that the pair's preprocessing fills or its model reads, in columns that may be null;
    `out_of_range` about numbers beyond the column's `min` and `max`; `unseen_category` about categories that the
    training rows do not have. `mark` answers and names them in the answer; `refuse` answers 422 and names the rows.
    Other nulls are always refused.
    """

    missing: Reaction = "mark"
    out_of_range: Reaction = "mark"
    unseen_category: Reaction = "mark"
