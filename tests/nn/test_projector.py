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


def _linear(*sizes: int, bias: bool = False) -> nn.Linear:
    return nn.Linear(*sizes, bias=bias)


# the heads of the official code, each as its own list of modules (see the docstring for the files)
OFFICIAL = {
    "moco v1, c2l": (
        {"layers": 1, "ending": "biased"},
        [_linear(6, 4, bias=True)],
    ),
    "moco v2": (
        {"norm": "none", "ending": "biased"},
        [_linear(6, 6, bias=True), nn.ReLU(), _linear(6, 4, bias=True)],
    ),
    "moco v3, vit projector": (
        {"hidden": 5, "layers": 3, "ending": "plain"},
        [
            *(_linear(6, 5), nn.BatchNorm1d(5), nn.ReLU()),
            *(_linear(5, 5), nn.BatchNorm1d(5), nn.ReLU()),
            *(_linear(5, 4), nn.BatchNorm1d(4, affine=False)),
        ],
    ),
    "moco v3, resnet predictor; byol but for a bias": (
        {"hidden": 5, "ending": "linear"},
        [_linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), _linear(5, 4)],
    ),
    "barlow twins": (
        {"hidden": 5, "layers": 3, "ending": "linear"},
        [
            *(_linear(6, 5), nn.BatchNorm1d(5), nn.ReLU()),
            *(_linear(5, 5), nn.BatchNorm1d(5), nn.ReLU()),
            _linear(5, 4),
        ],
    ),
    "simclr v2": (
        {"layers": 3},
        [
            *(_linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()),
            *(_linear(6, 6), nn.BatchNorm1d(6), nn.ReLU()),
            *(_linear(6, 4), nn.BatchNorm1d(4)),
        ],
    ),
}


@pytest.mark.parametrize("method", OFFICIAL)
def test_a_published_head_has_the_same_tensors_outputs_and_gradients(method: str) -> None:
    options, modules = OFFICIAL[method]
    head, want = Projector(6, out_features=4, **options).double(), nn.Sequential(*modules).double()
    torch.manual_seed(0)
    for weight in want.state_dict().values():
        weight.copy_(torch.rand(weight.shape) + 0.5)
    if method == "simclr v2":  # its norm has center=False: no offset
        torch.nn.init.zeros_(want[-1].bias)
    theirs, mine = list(want.parameters()), list(head.parameters())
    assert [p.shape for p in mine] == [p.shape for p in theirs]
    with torch.no_grad():
        for a, b in zip(mine, theirs, strict=True):
            a.copy_(b)
    x = torch.randn(7, 6, dtype=torch.float64)
    for net in (head, want):
        (net(x) ** 3).sum().backward()
    torch.testing.assert_close(head(x), want(x))
    for a, b in zip(mine, theirs, strict=True):
        if a.requires_grad:
            torch.testing.assert_close(a.grad, b.grad)


@pytest.mark.parametrize("norm", ["batch", "layer", "none"])
@pytest.mark.parametrize(
    ("ending", "learned"),
    [
        ("scaled", {"batch": 2, "layer": 2, "none": 1}),
        ("plain", {"batch": 1, "layer": 1, "none": 1}),
        ("linear", {"batch": 1, "layer": 1, "none": 1}),
        ("biased", {"batch": 2, "layer": 2, "none": 2}),
    ],
)
def test_an_ending_learns_what_it_says(ending: Any, learned: dict[str, int], norm: Any) -> None:
    projector = Projector(6, layers=1, out_features=4, norm=norm, ending=ending)
    assert sum(p.requires_grad for p in projector.parameters()) == learned[norm]
    normed = norm != "none" and ending in ("scaled", "plain")
    embeddings = projector(100 * torch.randn(9, 6)).detach()
    axis = 0 if norm == "batch" else 1
    assert torch.allclose(embeddings.mean(axis), torch.zeros(1), atol=1e-5) == normed


def test_the_default_is_initialised_as_ever() -> None:
    """Names, order and draws of the default, written out: checkpoints and seeds depend on it."""
    torch.manual_seed(3)
    got = Projector(6, hidden=5, out_features=4).state_dict()
    torch.manual_seed(3)
    want = nn.Sequential(_linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), _linear(5, 4))
    want.append(nn.BatchNorm1d(4))
    assert list(got) == [f"layers.{name}" for name in want.state_dict()]
    assert all(torch.equal(got[f"layers.{k}"], v) for k, v in want.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": 0}, "projector.hidden: 0"),
        ({"out_features": 0}, "projector.out_features"),
        ({"layers": 0}, "projector.layers"),
        ({"norm": "group"}, "projector.norm: 'group' is not one of .'batch', 'layer', 'none'"),
        ({"ending": "affine"}, "projector.ending: 'affine' is not one of .'scaled', 'plain', "),
    ],
)
def test_values_out_of_range_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Projector(4, **options)
