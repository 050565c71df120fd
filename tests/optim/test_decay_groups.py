"""Parameter groups: a partition, by the right rule, and refused where a name is wrong."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from lightning_rad.optim.decay_groups import decay_groups
from lightning_rad.optim.lars import LARS


class Tied(nn.Module):
    """A table used twice, a temperature, and a frozen layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(3, 4)
        self.out = nn.Linear(4, 3)
        self.out.weight = self.table.weight
        self.log_temperature = nn.Parameter(torch.tensor(0.1))
        self.prompt = nn.Parameter(torch.zeros(2, 4))
        self.norm = nn.LayerNorm((2, 4))
        self.frozen = nn.Linear(2, 2).requires_grad_(False)


def _names(module: nn.Module, group: dict[str, list[nn.Parameter]]) -> set[str]:
    wanted = {id(p) for p in group["params"]}
    assert len(wanted) == len(group["params"])
    return {name for name, p in module.named_parameters() if id(p) in wanted}


@pytest.mark.parametrize(
    "name", ["resnet10t", "vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224"]
)
def test_each_trainable_parameter_is_in_one_group(name: str) -> None:
    module = timm.create_model(name, num_classes=0, in_chans=1)
    next(module.parameters()).requires_grad_(False)
    decayed, spared = decay_groups(module)
    a, b = _names(module, decayed), _names(module, spared)
    assert not a & b
    assert a | b == {n for n, p in module.named_parameters() if p.requires_grad}
    assert "weight_decay" not in decayed
    assert spared["weight_decay"] == 0.0
    assert all("bias" not in n and "norm" not in n.split(".")[-2:] for n in a)
    assert all(p.ndim >= 2 for p in decayed["params"])


def test_timm_names_and_user_names_are_spared_below_any_module() -> None:
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    module = nn.ModuleDict({"encoder": nn.ModuleDict({"net": vit})})
    decayed, spared = decay_groups(module)
    assert {"encoder.net.pos_embed", "encoder.net.cls_token"} <= _names(module, spared)
    assert "encoder.net.blocks.0.mlp.fc1.weight" in _names(module, decayed)
    _, spared = decay_groups(module, ["blocks.0.mlp.fc1.weight"])
    assert "encoder.net.blocks.0.mlp.fc1.weight" in _names(module, spared)
    assert "encoder.net.blocks.1.mlp.fc1.weight" not in _names(module, spared)


def test_tied_scalar_norm_and_frozen_parameters() -> None:
    module = Tied()
    decayed, spared = decay_groups(module)
    assert _names(module, decayed) == {"table.weight", "prompt"}
    assert _names(module, spared) == {"log_temperature", "norm.weight", "norm.bias", "out.bias"}
    decayed, _ = decay_groups(module, ["out.weight"])  # the table by its other name
    assert _names(module, decayed) == {"prompt"}


def test_an_empty_group_is_left_out_and_nothing_to_train_is_an_error() -> None:
    assert len(decay_groups(nn.Linear(2, 2, bias=False))) == 1
    with pytest.raises(ValueError, match="no trainable parameter"):
        decay_groups(nn.Linear(2, 2).requires_grad_(False))


@pytest.mark.parametrize("wrong", ["pos_embedd", "rompt", "prompt.weight"])
def test_a_name_that_matches_nothing_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=f"no_decay: .*'{wrong}'"):
        decay_groups(Tied(), [wrong])


def test_optimisers_accept_the_groups() -> None:
    groups = decay_groups(Tied())
    lars, adamw = (
        LARS(groups, lr=0.1, weight_decay=0.3),
        torch.optim.AdamW(groups, weight_decay=0.3),
    )
    assert [(g["weight_decay"], g["adapt"]) for g in lars.param_groups] == [(0.3, True), (0, False)]
    assert [g["weight_decay"] for g in adamw.param_groups] == [0.3, 0]
