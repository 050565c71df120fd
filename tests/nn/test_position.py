"""Position embeddings: sines and cosines where they belong, grids resampled without a shift."""

from __future__ import annotations

import math

import pytest
import timm
import torch
from torch import Tensor, nn

from lightning_rad.nn.position import fix_sincos, positions_of, resampled


def _vit(name: str = "test_vit", **options: object) -> nn.Module:
    net: nn.Module = timm.create_model(name, num_classes=0, in_chans=1, **options)
    return net


def _pos(net: nn.Module) -> Tensor:
    return net.pos_embed.detach()  # type: ignore[operator, union-attr, return-value]


@pytest.mark.parametrize("size", [(64, 64), (32, 80)])
def test_every_patch_has_its_own_sines_and_cosines(size: tuple[int, int]) -> None:
    """One patch and feature at a time, in Python's floats; patches of 16 pixels, row by row."""
    net = _vit(img_size=size)
    fix_sincos(net)
    width = net.embed_dim
    down, across = size[0] // 16, size[1] // 16
    assert _pos(net).shape == (1, 1 + down * across, width)
    assert not _pos(net)[0, 0].any()
    for token in range(down * across):
        row, column = divmod(token, across)
        for feature in range(width):
            part, i = divmod(feature, width // 4)  # type: ignore[operator]
            angle = (row, row, column, column)[part] / 10_000 ** (4 * i / width)  # type: ignore[operator]
            want = (math.sin, math.cos)[part % 2](angle)
            assert float(_pos(net)[0, 1 + token, feature]) == pytest.approx(want, abs=1e-6)


def test_rows_and_columns_are_those_of_the_image() -> None:
    """Patches that light up in one row share the row's half of the embedding."""
    net = _vit(img_size=(32, 80))
    fix_sincos(net)
    image = torch.zeros(1, 1, 32, 80)
    image[:, :, 16:] = 1  # the lower row of patches
    with torch.no_grad():
        patches = net.patch_embed(image).reshape(10, -1)  # type: ignore[operator]
    lit = (patches - patches[0]).abs().sum(1) > 1e-4
    grid = _pos(net)[0, 1:]
    half = grid.shape[1] // 2
    assert lit.sum() == 5
    assert (grid[lit, :half] == grid[lit][0, :half]).all()
    assert (grid[lit][:, :half] != grid[~lit][:, :half]).any(1).all()
    assert len(grid[lit, half:].unique(dim=0)) == 5


@pytest.mark.parametrize(
    ("name", "prefix"),
    [("vit_base_patch16_siglip_224", 0), ("deit_tiny_distilled_patch16_224", 2)],
)
def test_prefix_tokens_have_a_zero_row_where_they_have_one(name: str, prefix: int) -> None:
    net = _vit(name, img_size=32)
    fix_sincos(net)
    assert _pos(net).shape[1] == prefix + 4
    assert not _pos(net)[0, :prefix].any()
    assert _pos(net)[0, prefix:].any(dim=1).all()


def test_registers_without_a_row_are_left_out() -> None:
    net = _vit("vit_small_patch14_reg4_dinov2", img_size=28)
    fix_sincos(net)
    assert _pos(net).shape[1] == 4
    assert net(torch.zeros(1, 1, 28, 28)).shape == (1, 384)


def test_it_does_not_learn() -> None:
    net = _vit(img_size=32)
    fix_sincos(net)
    before = _pos(net).clone()
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    net(torch.rand(2, 1, 32, 32)).square().sum().backward()
    optimizer.step()
    assert torch.equal(_pos(net), before)


@pytest.mark.parametrize(
    "name", ["resnet10t", "swin_tiny_patch4_window7_224", "pit_ti_224", "hiera_tiny_224"]
)
def test_a_network_without_one_embedding_over_one_grid_is_refused(name: str) -> None:
    with torch.device("meta"):
        net = _vit(name)
    assert positions_of(net) is None
    with pytest.raises(ValueError, match="position: sincos needs a transformer"):
        fix_sincos(net)


def test_a_width_that_4_does_not_divide_is_refused() -> None:
    net = _vit(img_size=32)
    net.pos_embed = nn.Parameter(torch.zeros(1, 5, 6))
    with pytest.raises(ValueError, match="width that 4 divides, not 6"):
        fix_sincos(net)


def test_resampling_keeps_prefix_tokens_and_a_linear_ramp() -> None:
    """A ramp over the image stays that ramp on a finer grid, away from its border."""
    net = _vit(img_size=128)
    centres = (torch.arange(4) + 0.5) / 4
    ramp = centres[:, None].expand(4, 4) + 10 * centres
    found = torch.cat([torch.full((1, 1, 64), 7.0), ramp.reshape(1, 16, 1).expand(-1, -1, 64)], 1)
    moved = resampled(found, net)
    assert moved is not None
    assert moved[1] == "pos_embed resampled from 4x4 to 8x8 patches"
    assert (moved[0][0, 0] == 7).all()
    fine = (torch.arange(8) + 0.5) / 8
    got = moved[0][0, 1:, 0].reshape(8, 8)[3:5, 3:5]
    torch.testing.assert_close(got, (fine[:, None] + 10 * fine)[3:5, 3:5], atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(1, 17, 64), (1, 19, 64), (1, 5, 32), (5, 64), (1, 1, 64)])
def test_what_is_no_other_square_grid_is_not_resampled(shape: tuple[int, ...]) -> None:
    assert resampled(torch.zeros(shape), _vit(img_size=64)) is None
