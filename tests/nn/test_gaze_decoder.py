"""Gaze decoder: patches keep their places, rows do not see each other, sizes that do not go."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.nn.gaze_decoder import GazeDecoder

B, GRID, D, SIDE = 3, 4, 6, 12


def decoder(side: int = SIDE) -> GazeDecoder:
    torch.manual_seed(0)
    return GazeDecoder(D, width=16, side=side).double()


def tokens(seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(B, GRID * GRID, D, generator=generator, dtype=torch.float64)


def test_it_gives_one_score_a_cell_whatever_the_grid() -> None:
    assert decoder()(tokens()).shape == (B, SIDE, SIDE)
    assert decoder()(tokens()[:, :9]).shape == (B, SIDE, SIDE)
    assert decoder(side=2)(tokens()).shape == (B, 2, 2)


def test_a_patch_stands_where_it_was_row_by_row() -> None:
    """Transposing the grid and all kernels transposes the map, and each row is its own."""
    net = decoder()
    straight = net(tokens())
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.mT.contiguous()
    turned = tokens().unflatten(1, (GRID, GRID)).transpose(1, 2).flatten(1, 2)
    torch.testing.assert_close(net(turned), straight.mT)
    torch.testing.assert_close(net(turned[1:2]), straight[1:2].mT)


def test_a_lone_patch_is_seen_in_its_own_corner_most() -> None:
    net = decoder().requires_grad_(False)
    lone = tokens()[:1].clone().requires_grad_()
    net(lone)[0, 0, -1].backward()  # the upper right cell
    assert lone.grad is not None
    pull = lone.grad[0].abs().sum(1).view(GRID, GRID)
    assert pull.argmax() in (GRID - 1, GRID - 2, 2 * GRID - 1, 2 * GRID - 2)


def test_every_parameter_learns() -> None:
    net = decoder()
    (net(tokens()) * torch.randn(B, SIDE, SIDE).double()).sum().backward()
    for name, p in net.named_parameters():
        assert p.grad is not None, name
        assert p.grad.abs().max() > 0, name


def test_patches_that_are_no_square_are_refused() -> None:
    with pytest.raises(ValueError, match="15 patches are no square grid"):
        decoder()(tokens()[:, :15])


@pytest.mark.parametrize(("key", "value"), [("width", 0), ("width", 12), ("side", 0)])
def test_sizes_that_do_not_go_are_refused_by_name(key: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"^decoder\.{key}: "):
        GazeDecoder(D, **{key: value})
