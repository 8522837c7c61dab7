"""A version of the model definition, and the search space around it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mlplatform.config.base import NAME_PATTERN, Frozen
from mlplatform.config.rules import params_mistakes
from mlplatform.plugins import MODELS, PluginError, PluginUse


class SearchDimension(Frozen):
    """One dimension of a search space.

    With `when`, other dimensions by name and the values they must have, it is searched only in trials where all of them
    do; in the others it keeps the configured value.
    """

    type: Literal["int", "float", "categorical"]
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] | None = None
    when: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _shape(self) -> SearchDimension:
        if self.type == "categorical":
            if not self.choices:
                raise ValueError("a categorical dimension needs choices")
        elif self.low is None or self.high is None or self.low > self.high:
            raise ValueError(f"low and high must be given with low <= high, but low={self.low} and high={self.high}")
        else:
            self._check_scale(self.low)
        return self

    def _check_scale(self, low: float) -> None:
        if self.log and (low <= 0 or self.step is not None):
            raise ValueError(f"a log dimension needs low above 0 and no step, but low={low} and step={self.step}")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step must be above 0, but is {self.step}")
        if self.type == "int":
            for key in ("low", "high", "step"):
                value = getattr(self, key)
                if value is not None and value != int(value):
                    raise ValueError(f"{key} of an int dimension must be a whole number, but is {value}")

    def can_be(self, value: Any) -> bool:
        """Return whether a trial can have this value."""
        if self.type == "categorical":
            return value in (self.choices or ())
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        assert self.low is not None
        assert self.high is not None
        step = self.step or (1 if self.type == "int" else None)
        steps = 0.0 if step is None else (value - self.low) / step
        return self.low <= value <= self.high and abs(steps - round(steps)) < 1e-9


class ModelConfig(Frozen):
    """A version of the model definition: family, parameters and, optionally, a search space of one's own.

    `search_space: null` uses the family's own space; `{}` searches nothing.
    """

    version: str = Field(pattern=NAME_PATTERN)
    family: str
    params: dict[str, Any] = Field(default_factory=dict)
    search_space: dict[str, SearchDimension] | None = None


def check_conditions(space: Mapping[str, SearchDimension], key: str = "model.search_space") -> None:
    """Check the conditions of a search space.

    Raises:
        ValueError: if one names no dimension, asks for a value that its dimension never has, or depends on itself.
    """
    for name, dimension in space.items():
        for parent, values in dimension.when.items():
            if parent not in space:
                raise ValueError(
                    f"{key}.{name}.when names {parent!r}, which is not a dimension of the search space; "
                    f"allowed: {', '.join(other for other in space if other != name) or 'none'}"
                )
            for value in values:
                if not space[parent].can_be(value):
                    raise ValueError(f"{key}.{name}.when asks for {parent} = {value!r}, a value that it never has")
    for name in space:
        ancestors, found = set[str](), set(space[name].when)
        while found - ancestors:
            ancestors |= found
            found = {parent for ancestor in ancestors for parent in space[ancestor].when}
        if name in ancestors:
            raise ValueError(f"{key}.{name}.when leads back to {name!r} itself; conditions must not form a circle")


def search_space_mistakes(model: ModelConfig) -> Iterator[str]:
    """Yield what is wrong with a search space of one's own: names and values that the family has no use for."""
    space = model.search_space or {}
    try:
        family = MODELS.get(model.family)
    except PluginError:
        return
    use = PluginUse(MODELS, "model.family", model.family, "model.search_space", model.params)
    # With parameters that are wrong themselves, nothing could be told from values beside them.
    can_try = not params_mistakes(use)
    for name, dimension in space.items():
        if name not in family.Params.model_fields:
            yield (
                f"model.search_space names {name!r}, which is not a parameter of {model.family!r}; "
                f"allowed: {', '.join(family.Params.model_fields)}"
            )
        elif can_try:
            for value in dimension.choices or (dimension.low, dimension.high):
                yield from params_mistakes(replace(use, params={**model.params, name: value}))
    try:
        check_conditions(space)
    except ValueError as error:
        yield str(error)
