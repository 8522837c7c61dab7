"""Categorical columns as vectors: rows of a table, in which every column has one row more, for codes it does not know.

Codes are those of `ModelSpec.cardinalities`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


class CategoryRows(nn.Module):
    """Finds the rows of codes in a table that several columns share.

    A column's first row is for codes outside its known ones. There are no parameters in here, so that a network can
    name its table as it likes.

    Parameters:
        cardinalities: number of categories of every column.

    Attributes:
        owners: the column of every row of the table, from 0.
    """

    counts: torch.Tensor
    offsets: torch.Tensor
    owners: torch.Tensor

    def __init__(self, cardinalities: Sequence[int]) -> None:
        super().__init__()
        counts = torch.tensor(cardinalities, dtype=torch.int64)
        self.register_buffer("counts", counts[:, None], persistent=False)
        self.register_buffer("offsets", (torch.cumsum(counts + 1, 0) - counts - 1)[:, None], persistent=False)
        owners = torch.repeat_interleave(torch.arange(len(counts)), counts + 1)
        self.register_buffer("owners", owners, persistent=False)

    def new_table(self, width: int) -> nn.Parameter:
        """Return a table of random vectors."""
        table = torch.randn(len(self.owners), width)
        # Training may never see an unseen category; its row then stays neutral instead of random.
        table[self.offsets] = 0
        return nn.Parameter(table)

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """Return the rows of codes of shape (columns, N), which may be stored as any kind of number."""
        codes = codes.long()
        unseen = (codes < 0) | (codes >= self.counts)
        return self.offsets + torch.where(unseen, 0, codes + 1)


class MixedColumns(nn.Module):
    """Leaves numbers as they are and replaces every category by its vector; has no parameters without categories.

    Parameters:
        cardinalities: number of categories of every column, 0 for a number.
        width: of a category's vector.

    Attributes:
        size: number of values per row that come out.
    """

    numbers: torch.Tensor
    categories: torch.Tensor

    def __init__(self, cardinalities: Sequence[int], width: int) -> None:
        super().__init__()
        numbers = [place for place, count in enumerate(cardinalities) if not count]
        categories = [place for place, count in enumerate(cardinalities) if count]
        self.register_buffer("numbers", torch.tensor(numbers, dtype=torch.int64), persistent=False)
        self.register_buffer("categories", torch.tensor(categories, dtype=torch.int64), persistent=False)
        self.size = len(numbers) + len(categories) * width
        if categories:
            self.rows = CategoryRows([cardinalities[place] for place in categories])
            self.table = self.rows.new_table(width)

    def forward(self, values: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Return (..., size).

        Parameters:
            values, codes: of shape (..., columns); numbers are taken from the first, categories from the second.
        """
        if not len(self.categories):
            return values
        chosen = codes[..., self.categories]
        vectors = functional.embedding(self.rows(chosen.reshape(-1, chosen.shape[-1]).T).T, self.table)
        return torch.cat([values[..., self.numbers], vectors.reshape(*chosen.shape[:-1], -1)], dim=-1)
