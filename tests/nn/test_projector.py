"""The projector: SimCLR's head, layer by layer, and rows that do or do not know their batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from lightning_rad.nn.projector import Projector


def test_the_default_is_the_head_of_simclr() -> None:
    torch.manual_seed(0)
    projector = Projector(8).double()
    x = torch.randn(16, 8, dtype=torch.float64)
    w1, w2 = (m.weight for m in projector.modules() if isinstance(m, nn.Linear))
    hidden = functional.batch_norm(x @ w1.T, None, None, training=True).relu()
    want = functional.batch_norm(hidden @ w2.T, None, None, training=True)
    torch.testing.assert_close(projector(x), want)
    assert w1.shape == (8, 8)
    assert w2.shape == (128, 8)


def test_the_last_norm_never_learns_an_offset() -> None:
    projector = Projector(4, out_features=3)
    optimizer = torch.optim.SGD([p for p in projector.parameters() if p.requires_grad], lr=0.1)
    (projector(torch.randn(6, 4)) * torch.randn(6, 3)).sum().backward()
    optimizer.step()
    hidden, last = (m for m in projector.modules() if isinstance(m, nn.BatchNorm1d))
    assert not last.bias.any()
    assert hidden.bias.any()
    assert (last.weight != 1).any()


@pytest.mark.parametrize(("norm", "biases"), [("batch", 2), ("layer", 2), ("none", 2)])
def test_three_layers_and_their_biases(norm: Any, biases: int) -> None:
    projector = Projector(6, hidden=5, out_features=4, layers=3, norm=norm)
    linear = [m for m in projector.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(6, 5), (5, 5), (5, 4)]
    assert [m.bias is not None for m in linear] == [norm == "none"] * 2 + [False]
    trained = {n for n, p in projector.named_parameters() if p.requires_grad and "bias" in n}
    assert len(trained) == biases
    assert projector(torch.randn(3, 6)).shape == (3, projector.out_features)


@pytest.mark.parametrize(("norm", "tied"), [("batch", True), ("layer", False), ("none", False)])
def test_only_batch_norm_ties_a_row_to_its_batch(norm: Any, tied: bool) -> None:
    torch.manual_seed(0)
    projector, x = Projector(6, norm=norm), torch.randn(4, 6)
    together, apart = projector(x)[:2], projector(x[:2])
    assert torch.allclose(together, apart, atol=1e-5) != tied


def test_one_layer_is_linear() -> None:
    projector, x = Projector(5, layers=1, norm="none"), torch.randn(2, 3, 5)
    torch.testing.assert_close(projector(x[0] + x[1]), projector(x[0]) + projector(x[1]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "projector.hidden: 0"),
        ({"out_features": 0}, "projector.out_features"),
        ({"layers": 0}, "projector.layers"),
        ({"norm": "group"}, "'group' is not one of .'batch', 'layer', 'none'"),
    ],
)
def test_values_out_of_range_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Projector(4, **options)
