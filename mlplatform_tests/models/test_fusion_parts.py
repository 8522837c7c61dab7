"""Parts of the Temporal Fusion Transformer: maps of embeddings that skip the embeddings, and cheap dropout."""

from __future__ import annotations

import pytest
import torch

from mlplatform.models.networks.modules.dropout import Dropout
from mlplatform.models.networks.modules.fusion_transformer import Embedded, Embeddings, VariableSelection

WIDTH, ROWS = 8, 50
CARDINALITIES = (0, 3, 0, 5)
ANGLES = ("hour", "day")


@pytest.fixture
def embeddings() -> Embeddings:
    torch.manual_seed(0)
    return Embeddings(CARDINALITIES, len(ANGLES), WIDTH)


def embedded(embeddings: Embeddings) -> Embedded:
    numbers, codes = torch.randn(4, ROWS), torch.randint(-1, 6, (4, ROWS)).float()
    columns = torch.where(torch.tensor(CARDINALITIES)[:, None] > 0, codes, numbers)
    return embeddings(columns, torch.randn(4, ROWS))


def test_linear_maps_of_variables_equal_maps_of_their_vectors(embeddings: Embeddings) -> None:
    variables = embedded(embeddings)
    vectors = variables.vectors()
    assert vectors.shape == (6, ROWS, WIDTH)
    weight, bias = torch.randn(6, WIDTH, 3), torch.randn(6, 1, 3)
    torch.testing.assert_close(variables.mapped(weight, bias), vectors @ weight + bias, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(variables.summed(weight), (vectors @ weight).sum(dim=0), rtol=1e-4, atol=1e-5)


def test_variables_are_numbers_then_angles_then_categories(embeddings: Embeddings) -> None:
    assert embeddings.names(["load", "state", "speed", "kind"], ANGLES) == (
        "load", "speed", "hour", "day", "state", "kind",
    )  # fmt: skip
    columns, angles = torch.zeros(4, 1), torch.zeros(4, 1)
    before = embeddings(columns, angles).vectors()
    for place, variable in ((0, 0), (2, 1), (1, 4), (3, 5)):
        changed = columns.clone()
        changed[place] = 1
        differs = (embeddings(changed, angles).vectors() != before).any(dim=-1)[:, 0]
        assert differs.nonzero().flatten().tolist() == [variable]


def test_an_unseen_category_is_neutral_and_tables_do_not_overlap(embeddings: Embeddings) -> None:
    codes = torch.tensor([[0.0] * 6, [-1, 0, 1, 2, 3, 9], [0] * 6, [-1, 0, 1, 2, 3, 4]])
    first, second = embeddings(codes, torch.zeros(4, 6)).vectors()[4:]
    assert not first[[0, 4, 5]].any()
    assert not second[0].any()
    known = torch.cat([first[1:4], second[1:]])
    assert len(torch.unique(known, dim=0)) == 8


def test_a_selection_adds_up_the_answers_of_the_variables_networks(embeddings: Embeddings) -> None:
    variables = embedded(embeddings)
    selection = VariableSelection(6, WIDTH, 0.0, context=False)
    torch.nn.init.normal_(selection.networks.scale)
    torch.nn.init.normal_(selection.networks.shift)
    combined, weights = selection(variables, 10, None)
    assert combined.shape == (10, 5, WIDTH)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(10, 5))
    alone = [
        selection.networks(variables, torch.nn.functional.one_hot(torch.full((ROWS,), k), 6).float()) for k in range(6)
    ]
    mixed = sum(weights.flatten(0, 1)[:, k, None] * alone[k] for k in range(6))
    torch.testing.assert_close(combined.flatten(0, 1), mixed, rtol=1e-4, atol=1e-5)


def test_dropout_drops_its_share_keeps_the_mean_and_repeats_by_seed() -> None:
    dropout = Dropout(0.25)
    values = torch.ones(999, 101)
    torch.manual_seed(1)
    found = dropout(values)
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (found == 0).float().mean() == pytest.approx(0.25, abs=0.01)
    # Neighbours come from one draw and must not be dropped together.
    dropped = found == 0
    assert (dropped[:, 1:] & dropped[:, :-1]).float().mean() == pytest.approx(0.0625, abs=0.01)
    torch.manual_seed(1)
    assert torch.equal(dropout(values), found)
    assert not torch.equal(dropout(values), found)


def test_dropout_does_nothing_when_it_is_not_training() -> None:
    values = torch.randn(4, 5)
    assert Dropout(0.5).eval()(values) is values
    assert Dropout(0.0)(values) is values
