"""The modules of the Temporal Fusion Transformer (Lim et al., International Journal of Forecasting, 2021).

The networks of all variables of one kind run as one batched product over stacked weights, not as a loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional


class Embeddings(nn.Module):
    """Makes one vector of every variable: a number lies on a line, a category has a row of a table, an angle a circle.

    The variables come out as numbers, then categories (both in the order of the columns), then angles.

    Parameters:
        cardinalities: number of categories of every column, 0 for a number.
        angles: number of angles, each given by its sine and cosine.
    """

    numbers: torch.Tensor
    categories: torch.Tensor
    counts: torch.Tensor
    offsets: torch.Tensor

    def __init__(self, cardinalities: Sequence[int], angles: int, width: int) -> None:
        super().__init__()
        self.order = sorted(range(len(cardinalities)), key=lambda place: cardinalities[place] > 0)
        counts = torch.tensor([count for count in cardinalities if count], dtype=torch.int64)
        numbers = len(cardinalities) - len(counts)
        self.register_buffer("numbers", torch.tensor(self.order[:numbers], dtype=torch.int64), persistent=False)
        self.register_buffer("categories", torch.tensor(self.order[numbers:], dtype=torch.int64), persistent=False)
        self.register_buffer("counts", counts, persistent=False)
        self.register_buffer("offsets", torch.cumsum(counts + 1, 0) - counts - 1, persistent=False)
        self.slope = nn.Parameter(torch.randn(numbers, width))
        # A line through the origin would keep only the sign of a number after layer normalisation.
        self.shift = nn.Parameter(torch.randn(numbers, width))
        self.table = nn.Parameter(torch.randn(int((counts + 1).sum()), width))
        self.circle = nn.Parameter(torch.randn(angles, 2, width))
        with torch.no_grad():
            # Training may never see an unseen category; its row then stays neutral instead of random.
            self.table[self.offsets] = 0

    def forward(self, columns: torch.Tensor, angles: torch.Tensor) -> torch.Tensor:
        """Map columns (..., columns) and sines and cosines (..., 2 x angles) to (..., variables, width)."""
        lines = columns[..., self.numbers, None] * self.slope + self.shift
        codes = columns[..., self.categories].long()
        unseen = (codes < 0) | (codes >= self.counts)
        rows = functional.embedding(self.offsets + torch.where(unseen, 0, codes + 1), self.table)
        pairs = angles.reshape(*angles.shape[:-1], len(self.circle), 2)
        return torch.cat([lines, rows, torch.einsum("...ap,apw->...aw", pairs, self.circle)], dim=-2)


class GatedSkip(nn.Module):
    """Gated linear unit, residual connection and layer normalisation over the last dimension."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.gate = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """Return a tensor of the shape of `skip`."""
        normed: torch.Tensor = self.norm(skip + functional.glu(self.gate(self.dropout(values)), dim=-1))
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
        inner = self.first(values)
        if self.context is not None:
            inner = inner + self.context(context)
        result: torch.Tensor = self.out(self.second(functional.elu(inner)), self.skip(values))
        return result


class StackedResidual(nn.Module):
    """One gated residual network per variable, with weights stacked along the first dimension."""

    def __init__(self, variables: int, width: int, dropout: float) -> None:
        super().__init__()
        bound = width**-0.5

        def weight(outputs: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(variables, width, outputs).uniform_(-bound, bound))

        self.first, self.second, self.gate = weight(width), weight(width), weight(2 * width)
        self.first_bias = nn.Parameter(torch.zeros(variables, 1, width))
        self.second_bias = nn.Parameter(torch.zeros(variables, 1, width))
        self.gate_bias = nn.Parameter(torch.zeros(variables, 1, 2 * width))
        self.scale = nn.Parameter(torch.ones(variables, 1, width))
        self.shift = nn.Parameter(torch.zeros(variables, 1, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Map (variables, rows, width) to the same shape."""
        inner = functional.elu(torch.baddbmm(self.first_bias, values, self.first))
        inner = self.dropout(torch.baddbmm(self.second_bias, inner, self.second))
        gated = functional.glu(torch.baddbmm(self.gate_bias, inner, self.gate), dim=-1)
        normed = functional.layer_norm(values + gated, values.shape[-1:])
        return normed * self.scale + self.shift


class VariableSelection(nn.Module):
    """Weights every variable, and adds up what its own network makes of it."""

    def __init__(self, variables: int, width: int, dropout: float, context: bool) -> None:
        super().__init__()
        self.networks = StackedResidual(variables, width, dropout)
        self.weights = GatedResidual(variables * width, width, variables, dropout, context)

    def forward(self, values: torch.Tensor, context: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (batch, steps, variables, width) to (batch, steps, width) and weights (batch, steps, variables)."""
        weights = self.weights(values.flatten(2), context).softmax(dim=-1)
        mapped = self.networks(values.flatten(0, 1).transpose(0, 1)).transpose(0, 1)
        combined = torch.bmm(weights.flatten(0, 1)[:, None], mapped)[:, 0]
        return combined.reshape(*values.shape[:2], -1), weights


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

    def forward(self, values: torch.Tensor) -> tuple[StaticContexts, torch.Tensor]:
        """Map (batch, variables, width) to the contexts and weights of shape (batch, variables)."""
        selected, weights = self.selection(values[:, None], None)
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
        self.dropout = nn.Dropout(dropout)

    def forward(self, values: torch.Tensor, horizon: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Let the last `horizon` steps attend to everything up to themselves.

        Parameters:
            values: of shape (batch, steps, width).

        Returns:
            (batch, horizon, width) and the mean attention of the heads, (batch, horizon, steps).
        """
        steps = values.shape[1]
        query = self.query(values[:, -horizon:]).reshape(-1, horizon, self.heads, self.size).transpose(1, 2)
        key = self.key(values).reshape(-1, steps, self.heads, self.size).permute(0, 2, 3, 1)
        hidden = torch.ones(horizon, steps, dtype=torch.bool, device=values.device).triu(steps - horizon + 1)
        scores = (query @ key * self.size**-0.5).masked_fill(hidden, float("-inf"))
        attention = scores.softmax(dim=-1)
        # The values are shared, so the mean over heads commutes with the product; every head drops steps of its own.
        mixed = torch.bmm(self.dropout(attention).mean(dim=1), self.value(values))
        result: torch.Tensor = self.out(mixed)
        return result, attention.mean(dim=1)


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

    def forward(self, static: torch.Tensor, past: torch.Tensor, future: torch.Tensor) -> Fused:
        """Fuse the embedded variables of a batch.

        Parameters:
            static: of shape (batch, static variables, width).
            past, future: of shapes (batch, L, past variables, width) and (batch, H, future variables, width).
        """
        horizon = future.shape[1]
        selection = enrichment = state = static_weights = None
        if self.static_encoder is not None:
            contexts, static_weights = self.static_encoder(static)
            selection, enrichment = contexts.selection[:, None], contexts.enrichment[:, None]
            state = (contexts.hidden[None].contiguous(), contexts.cell[None].contiguous())
        past, past_weights = self.past_selection(past, selection)
        future, future_weights = self.future_selection(future, selection)
        encoded, state = self.encoder(past, state)
        decoded, _ = self.decoder(future, state)
        local = self.local_skip(torch.cat([encoded, decoded], dim=1), torch.cat([past, future], dim=1))
        enriched = self.enrichment(local, enrichment)
        attended, attention = self.attention(enriched, horizon)
        attended = self.attention_skip(attended, enriched[:, -horizon:])
        steps = self.out_skip(self.positions(attended), local[:, -horizon:])
        return Fused(steps, static_weights, past_weights, future_weights, attention)
