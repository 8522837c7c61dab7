"""The modules of the Temporal Fusion Transformer (Lim et al., International Journal of Forecasting, 2021).

The networks of all variables of one kind run as one batched product over stacked weights, not as a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from mlplatform.models.networks.modules.categories import CategoryRows
from mlplatform.models.networks.modules.dropout import Dropout


class Embedded(NamedTuple):
    """Vectors of variables as what they are linear in: any linear map of them costs a fraction of the vectors.

    A number's vector lies on a line and an angle's on an ellipse, so a linear map needs to touch only the two
    coefficients per variable; a category's is a row of a table, so the map applies to the table. N rows, V variables
    in the order numbers, angles, categories.

    Attributes:
        inputs: of shape (numbers + angles, N, 2): a number and zero, or an angle's sine and cosine.
        directions, origins: of shapes (numbers + angles, 2, width) and (numbers + angles, 1, width).
        codes: rows of the table, of shape (categories, N).
        table, owners: of shape (table rows, width), and the category of every row, from 0.
    """

    inputs: torch.Tensor
    directions: torch.Tensor
    origins: torch.Tensor
    codes: torch.Tensor
    table: torch.Tensor
    owners: torch.Tensor

    def vectors(self) -> torch.Tensor:
        """Return the vectors, of shape (V, N, width)."""
        smooth = torch.baddbmm(self.origins, self.inputs, self.directions)
        return torch.cat([smooth, self._rows(self.table)]) if len(self.codes) else smooth

    def mapped(self, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Return `vectors() @ weight + bias`, of shape (V, N, outputs).

        Parameters:
            weight, bias: of shapes (V, width, outputs) and (V, 1, outputs).
        """
        smooth = len(self.inputs)
        first, origin = self._smooth(weight)
        lines = torch.baddbmm(origin + bias[:smooth], self.inputs, first)
        return torch.cat([lines, self._rows(self._mapped_table(weight)) + bias[smooth:]]) if len(self.codes) else lines

    def summed(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the sum over variables of `vectors() @ weight`, of shape (N, outputs)."""
        first, origin = self._smooth(weight)
        coefficients = self.inputs.transpose(0, 1).flatten(1)
        lines = torch.addmm(origin.sum(dim=(0, 1)), coefficients, first.flatten(0, 1))
        return lines + self._rows(self._mapped_table(weight)).sum(dim=0) if len(self.codes) else lines

    def _smooth(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        weight = weight[: len(self.inputs)]
        return self.directions @ weight, self.origins @ weight

    def _mapped_table(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.bmm(self.table[:, None], weight[len(self.inputs) + self.owners])[:, 0]

    def _rows(self, table: torch.Tensor) -> torch.Tensor:
        return functional.embedding(self.codes, table)


class Embeddings(nn.Module):
    """Makes one vector of every variable: a number lies on a line, an angle on an ellipse, a category has a table row.

    The variables come out as numbers (in the order of their columns), angles, and categories (in theirs).

    Parameters:
        cardinalities: number of categories of every column, 0 for a number.
        angles: number of angles, each given by its sine and cosine.
    """

    numbers: torch.Tensor
    categories: torch.Tensor

    def __init__(self, cardinalities: Sequence[int], angles: int, width: int) -> None:
        super().__init__()
        self.order = sorted(range(len(cardinalities)), key=lambda place: cardinalities[place] > 0)
        self.rows = CategoryRows([count for count in cardinalities if count])
        numbers = cardinalities.count(0)
        self.register_buffer("numbers", torch.tensor(self.order[:numbers], dtype=torch.int64), persistent=False)
        self.register_buffer("categories", torch.tensor(self.order[numbers:], dtype=torch.int64), persistent=False)
        self.slope = nn.Parameter(torch.randn(numbers, width))
        # A line through the origin would keep only the sign of a number after layer normalisation.
        self.shift = nn.Parameter(torch.randn(numbers, width))
        self.table = self.rows.new_table(width)
        self.circle = nn.Parameter(torch.randn(angles, 2, width))

    def names(self, columns: Sequence[str], angles: Sequence[str]) -> tuple[str, ...]:
        """Return the names of the variables in their order, from those of the columns and of the angles."""
        ordered, numbers = [columns[place] for place in self.order], len(self.numbers)
        return (*ordered[:numbers], *angles, *ordered[numbers:])

    def forward(self, columns: torch.Tensor, angles: torch.Tensor) -> Embedded:
        """Embed N rows: columns of shape (columns, N), and sines and cosines of shape (2 x angles, N)."""
        numbers = columns[self.numbers]
        lines = torch.stack([numbers, torch.zeros_like(numbers)], dim=-1)
        circles = angles.reshape(len(self.circle), 2, angles.shape[-1]).transpose(1, 2)
        slope = torch.stack([self.slope, torch.zeros_like(self.slope)], dim=1)
        origins = torch.cat([self.shift, torch.zeros_like(self.circle[:, 0])])
        return Embedded(
            inputs=torch.cat([lines, circles]),
            directions=torch.cat([slope, self.circle]),
            origins=origins[:, None],
            codes=self.rows(columns[self.categories]),
            table=self.table,
            owners=self.rows.owners,
        )


class GatedSkip(nn.Module):
    """Gated linear unit, residual connection and layer normalisation over the last dimension."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)

    def forward(self, values: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of `skip`."""
        value, gate = self.gate(self.dropout(values)).chunk(2, dim=-1)
        # Written out: torch's own gated linear unit takes four times as long on a processor.
        normed: torch.Tensor = self.norm(skip + value * gate.sigmoid())
        return normed


class GatedResidual(nn.Module):
    """Gated residual network, with an optional context."""

    def __init__(self, inputs: int, width: int, outputs: int, dropout: float, context: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.context = nn.Linear(width, width, bias=False) if context else None
        self.second = nn.Linear(width, outputs)
        self.skip = nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs)
        self.out = GatedSkip(outputs, dropout)

    def forward(self, values: torch.Tensor, context: torch.Tensor | None = None) -> torch.Tensor:
        """Map (..., inputs), and a context of shape (..., width), to (..., outputs)."""
        return self.finish(self.first(values), self.skip(values), context)

    def finish(self, inner: torch.Tensor, skip: torch.Tensor, context: torch.Tensor | None) -> torch.Tensor:
        """Do what comes after the two linear maps of the inputs."""
        if self.context is not None:
            inner = inner + self.context(context)
        result: torch.Tensor = self.out(self.second(functional.elu(inner)), skip)
        return result


class StackedResidual(nn.Module):
    """One gated residual network per variable, with weights stacked along the first dimension."""

    def __init__(self, variables: int, width: int, dropout: float) -> None:
        super().__init__()
        bound = width**-0.5

        def weight() -> nn.Parameter:
            return nn.Parameter(torch.empty(variables, width, width).uniform_(-bound, bound))

        def offset() -> nn.Parameter:
            return nn.Parameter(torch.zeros(variables, 1, width))

        self.first, self.second, self.value, self.gate = weight(), weight(), weight(), weight()
        self.first_bias, self.second_bias, self.value_bias, self.gate_bias = offset(), offset(), offset(), offset()
        self.scale = nn.Parameter(torch.ones(variables, 1, width))
        self.shift = offset()
        self.dropout = Dropout(dropout)

    def forward(self, variables: Embedded, weights: torch.Tensor) -> torch.Tensor:
        """Return the sum of the networks' answers, each times its variable's weight, of shape (N, width).

        Parameters:
            weights: of shape (N, variables).
        """
        inner = functional.elu(variables.mapped(self.first, self.first_bias))
        inner = self.dropout(torch.baddbmm(self.second_bias, inner, self.second))
        gate = torch.baddbmm(self.gate_bias, inner, self.gate).sigmoid()
        gated = variables.vectors() + torch.baddbmm(self.value_bias, inner, self.value) * gate
        normed = functional.layer_norm(gated, gated.shape[-1:])
        return (normed * self.scale * weights.T[..., None]).sum(dim=0) + weights @ self.shift[:, 0]


class VariableSelection(nn.Module):
    """Weights every variable, and adds up what its own network makes of it."""

    def __init__(self, variables: int, width: int, dropout: float, context: bool) -> None:
        super().__init__()
        self.width = width
        self.networks = StackedResidual(variables, width, dropout)
        self.weights = GatedResidual(variables * width, width, variables, dropout, context)

    def forward(
        self, variables: Embedded, batch: int, context: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (batch, steps, width) and weights (batch, steps, variables) of batch x steps rows."""
        first, skip = self.weights.first, self.weights.skip
        assert isinstance(skip, nn.Linear)
        joint = torch.cat([first.weight, skip.weight]).T.reshape(-1, self.width, self.width + skip.out_features)
        linear = variables.summed(joint) + torch.cat([first.bias, skip.bias])
        inner, skipped = linear.reshape(batch, -1, linear.shape[-1]).tensor_split([self.width], dim=-1)
        weights = self.weights.finish(inner, skipped, context).softmax(dim=-1)
        return self.networks(variables, weights.flatten(0, 1)).reshape(batch, -1, self.width), weights


class StaticContexts(NamedTuple):
    """What the static variables tell the other parts; every context has the shape (batch, width)."""

    selection: torch.Tensor
    enrichment: torch.Tensor
    hidden: torch.Tensor
    cell: torch.Tensor


class StaticEncoder(nn.Module):
    """Selects among the static variables, and makes the four contexts of the selected vector."""

    def __init__(self, variables: int, width: int, dropout: float) -> None:
        super().__init__()
        self.selection = VariableSelection(variables, width, dropout, context=False)
        self.contexts = nn.ModuleList(GatedResidual(width, width, width, dropout) for _ in StaticContexts._fields)

    def forward(self, variables: Embedded, batch: int) -> tuple[StaticContexts, torch.Tensor]:
        """Return the contexts and the weights, of shape (batch, variables)."""
        selected, weights = self.selection(variables, batch, None)
        return StaticContexts(*(network(selected[:, 0]) for network in self.contexts)), weights[:, 0]


class InterpretableAttention(nn.Module):
    """Multi-head attention whose heads share their values, so that their mean is one attention pattern."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query = nn.Linear(width, heads * self.size)
        self.key = nn.Linear(width, heads * self.size)
        self.value = nn.Linear(width, self.size)
        self.out = nn.Linear(self.size, width, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, values: torch.Tensor, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Let the last `horizon` steps attend to everything up to themselves.

        Parameters:
            values: of shape (batch, steps, width).

        Returns:
            (batch, horizon, width) and the mean attention of the heads, in training after dropout, of shape
            (batch, horizon, steps).
        """
        steps = values.shape[1]
        query = self.query(values[:, -horizon:]).reshape(-1, horizon, self.heads, self.size).transpose(1, 2)
        key = self.key(values).reshape(-1, steps, self.heads, self.size).permute(0, 2, 3, 1)
        hidden = torch.ones(horizon, steps, dtype=torch.bool, device=values.device).triu(steps - horizon + 1)
        scores = (query @ key * self.size**-0.5).masked_fill(hidden, float("-inf"))
        attention = scores.softmax(dim=-1)
        # The values are shared, so the mean over heads commutes with the product; every head drops steps of its own.
        pattern = self.dropout(attention).mean(dim=1)
        result: torch.Tensor = self.out(torch.bmm(pattern, self.value(values)))
        return result, pattern


class Fused(NamedTuple):
    """What the network makes of a batch; B samples, L input steps, H output steps.

    Attributes:
        steps: one vector per step of the horizon, of shape (B, H, width).
        static_weights: of shape (B, static variables); `None` without static variables.
        past_weights, future_weights: of shapes (B, L, past variables) and (B, H, future variables).
        attention: of every step of the horizon to all steps, of shape (B, H, L + H).
    """

    steps: torch.Tensor
    static_weights: torch.Tensor | None
    past_weights: torch.Tensor
    future_weights: torch.Tensor
    attention: torch.Tensor


class FusionTransformer(nn.Module):
    """The network from embedded variables to one vector per step of the horizon.

    Parameters:
        static, past, future: numbers of variables; without static variables there are no contexts.
        width: of every layer; a multiple of `heads`.
    """

    def __init__(self, static: int, past: int, future: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        has_context = static > 0
        self.static_encoder = StaticEncoder(static, width, dropout) if has_context else None
        self.past_selection = VariableSelection(past, width, dropout, has_context)
        self.future_selection = VariableSelection(future, width, dropout, has_context)
        self.encoder = nn.LSTM(width, width, batch_first=True)
        self.decoder = nn.LSTM(width, width, batch_first=True)
        self.local_skip = GatedSkip(width, dropout)
        self.enrichment = GatedResidual(width, width, width, dropout, has_context)
        self.attention = InterpretableAttention(width, heads, dropout)
        self.attention_skip = GatedSkip(width, dropout)
        self.positions = GatedResidual(width, width, width, dropout)
        self.out_skip = GatedSkip(width, dropout)

    def forward(self, static: Embedded, past: Embedded, future: Embedded, batch: int) -> Fused:
        """Fuse the embedded variables of a batch: `batch` static rows, and as many times L past and H future ones."""
        selection = enrichment = state = static_weights = None
        if self.static_encoder is not None:
            contexts, static_weights = self.static_encoder(static, batch)
            selection, enrichment = contexts.selection[:, None], contexts.enrichment[:, None]
            state = (contexts.hidden[None].contiguous(), contexts.cell[None].contiguous())
        selected_past, past_weights = self.past_selection(past, batch, selection)
        selected, future_weights = self.future_selection(future, batch, selection)
        horizon = selected.shape[1]
        encoded, state = self.encoder(selected_past, state)
        decoded, _ = self.decoder(selected, state)
        local = self.local_skip(torch.cat([encoded, decoded], dim=1), torch.cat([selected_past, selected], dim=1))
        enriched = self.enrichment(local, enrichment)
        attended, attention = self.attention(enriched, horizon)
        attended = self.attention_skip(attended, enriched[:, -horizon:])
        steps = self.out_skip(self.positions(attended), local[:, -horizon:])
        return Fused(steps, static_weights, past_weights, future_weights, attention)
