"""Public fused losses that run on a card alone: FlexAttention, Inf-CL and siglip-kernel.

Shape letters: N pairs, M = 2 N rows, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.setting import Setting
from benchmarks.rows import BIAS, LOW, T, unit
from benchmarks.ways import Way, Ways, leaf, optional

HEAD = 256
"""Inf-CL works on parts of this many features."""
FLEX_SHAPES = [(4096, 128), (16384, 128), (16384, 256), (65536, 128)]


def flex(ways: Ways, setting: Setting, pairs: int, dim: int) -> Ways:
    """The log-sum-exps of NT-Xent as those of an attention whose values are thrown away."""
    name, ours = "FlexAttention, forward and backward", ways["ours"]
    if not (setting.tiny or (pairs, dim) in FLEX_SHAPES) or isinstance(ours, str):
        return {}
    if setting.device != "cuda":
        return {name: "has no backward on a CPU"}
    attend = optional("torch.nn.attention.flex_attention", "flex_attention")
    if isinstance(attend, str):
        return {name: attend}
    quick = torch.compile(
        lambda z_MD: attention_loss(z_MD, attend), dynamic=False, backend=setting.compiler
    )
    return {name: Way(quick, tuple(map(leaf, ours.leaves)), LOW)}


def attention_loss(z_MD: Tensor, attend: Callable[..., Any]) -> Tensor:
    """NT-Xent by `flex_attention`."""
    u_MD = unit(z_MD)
    one = u_MD[None, None]
    values = one.new_zeros(1, 1, len(z_MD), 16)
    _, lse = attend(one, one, values, score_mod=_no_self, scale=1 / T, return_lse=True)
    positive_M = (u_MD * u_MD.roll(len(z_MD) // 2, 0)).sum(1, dtype=torch.float32) / T
    value: Tensor = (lse[0, 0].float() - positive_M).mean()
    return value


def _no_self(score: Tensor, batch: Tensor, head: Tensor, row: Tensor, key: Tensor) -> Tensor:
    del batch, head
    return torch.where(row == key, -math.inf, score)


def inf_cl(ways: Ways, pairs: int, dim: int) -> Ways:
    """Inf-CL, one call a direction; it multiplies float32 rows in tf32."""
    del pairs
    flash, ours = optional("inf_cl", "cal_flash_loss"), ways["ours"]
    if isinstance(flash, str) or isinstance(ours, str):
        return {"Inf-CL": str(flash)}
    head = min(dim, HEAD)

    def loss(image_ND: Tensor, text_ND: Tensor) -> Tensor:
        i_ND, t_ND = unit(image_ND).float(), unit(text_ND).float()
        images_N = flash(i_ND, t_ND, scale=1 / T, head_dim=head)
        texts_N = flash(t_ND, i_ND, scale=1 / T, head_dim=head)
        value: Tensor = (images_N + texts_N).mean() / 2
        return value

    return {"Inf-CL": Way(loss, tuple(map(leaf, ours.leaves)), LOW)}


def siglip_kernel(ways: Ways, pairs: int, dim: int) -> Ways:
    """siglip-kernel, whichever of its forms it picks."""
    del pairs, dim
    fused, ours = optional("siglip_kernel", "fused_siglip_loss"), ways["ours"]
    if isinstance(fused, str) or isinstance(ours, str):
        return {"siglip-kernel": str(fused)}
    log_scale, bias = (
        torch.tensor(value, device=ours.leaves[0].device, requires_grad=True)
        for value in (math.log(1 / T), BIAS)
    )

    def loss(image_ND: Tensor, text_ND: Tensor) -> Tensor:
        value: Tensor = fused(unit(image_ND), unit(text_ND), log_scale, bias)
        return value

    return {"siglip-kernel": Way(loss, tuple(map(leaf, ours.leaves)), LOW)}


OF: dict[str, Callable[[Ways, int, int], Ways]] = {"CLIP": inf_cl, "sigmoid": siglip_kernel}
