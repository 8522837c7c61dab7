"""Names and keys that DuckDB would mistake for others, or cannot compare.

Columns that differ only in case, floats that stand for ids, keys of another kind than the source's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

SHOWN_ROWS = 5


def case_twins(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return pairs of names that are one name to DuckDB, which looks at ASCII letters without their case."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(_folded(name), name), name) for name in dict.fromkeys(names)]
    return [(one, other) for one, other in pairs if one != other]


def refuse_case_twins(columns: Sequence[str], wanted: Iterable[str], where: str) -> None:
    """Check that DuckDB can tell the wanted columns from all others.

    Parameters:
        columns: all columns that `where` has.

    Raises:
        ValueError: if a wanted column differs from another only in case; it names both.
    """
    asked = {_folded(name) for name in wanted}
    for one, other in case_twins(columns):
        if _folded(one) in asked:
            raise ValueError(
                f"{where} has columns {one!r} and {other!r}, which differ only in case; the as-of store cannot tell "
                "them apart, so rename one"
            )


def refuse_rounded_keys(keys: pa.ChunkedArray, column: str, source: pa.DataType) -> None:
    """Check that a join key is known to the last digit, so that it cannot match another entity.

    Floats beyond their last whole digit (2^53 for 64 bits) are several ids rounded to one.

    Parameters:
        keys: of the entity rows.
        column: their name.
        source: type of the key in the feature view's source.

    Raises:
        ValueError: if a key is too large for the floats on either side; it names rows and what to do.
    """
    kinds = [kind for kind in (_value_type(keys.type), _value_type(source)) if pa.types.is_floating(kind)]
    if not kinds or not _is_number(_value_type(keys.type)) or keys.type == source:
        return
    limit = min(2.0 ** {16: 11, 32: 24, 64: 53}[kind.bit_width] for kind in kinds)
    numbers = keys.cast(_value_type(keys.type)).cast(pa.float64(), safe=False)
    is_rounded = pc.fill_null(pc.and_(pc.is_finite(numbers), pc.greater_equal(pc.abs(numbers), limit)), False)
    if not pc.any(is_rounded).as_py():
        return
    rows = pc.indices_nonzero(is_rounded).to_pylist()
    shown = ", ".join(f"row {row}: {keys[row].as_py()}" for row in rows[:SHOWN_ROWS])
    raise ValueError(
        f"the join key {column!r} is {keys.type} in entity_df and {source} in the source, and {len(rows)} of its "
        f"values are too large for floats to tell ids apart ({shown}); make it an integer on both sides (Int64 where "
        "some are missing)"
    )


def refuse_truth_values(keys: pa.DataType, column: str, source: pa.DataType) -> None:
    """Check that no join key is true or false on one side only: DuckDB would take true for the entity 1.

    Raises:
        ValueError: naming the key and both types.
    """
    kinds = [_value_type(keys), _value_type(source)]
    if any(pa.types.is_boolean(kind) for kind in kinds) and kinds[0] != kinds[1] and not pa.types.is_null(kinds[0]):
        raise ValueError(
            f"the join key {column!r} is {keys} in entity_df and {source} in the source, and true or false is no id of "
            "the others; give both sides one type"
        )


def keys_as_in(source: pa.DataType, keys: pa.ChunkedArray, column: str) -> pa.ChunkedArray:
    """Return join keys that can be compared with those of a source; keys that are all missing are of its type.

    Raises:
        ValueError: if the keys are of another kind, as text beside numbers; it names both types and what to do.
    """
    if keys.null_count == len(keys):
        return pa.chunked_array([pa.nulls(len(keys), source)])
    kinds = {_kind(_value_type(keys.type)), _kind(_value_type(source))}
    if len(kinds) == 1 or "" in kinds:
        return keys
    raise ValueError(
        f"the join key {column!r} is {keys.type} in entity_df, as {keys.drop_null()[0].as_py()!r}, and {source} in the "
        f"source, so no row could match; give both one type"
    )


def _kind(value_type: pa.DataType) -> str:
    """Return what values are compared with: `numbers`, `text`, `others`; empty for what a comparison makes fit."""
    if _is_number(value_type):
        return "numbers"
    if pa.types.is_string(value_type) or pa.types.is_large_string(value_type) or pa.types.is_string_view(value_type):
        return "text"
    return "others" if pa.types.is_nested(value_type) or pa.types.is_temporal(value_type) else ""


def _folded(name: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in name)


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_decimal(kind))
