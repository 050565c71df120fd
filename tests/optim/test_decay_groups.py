"""Parameter groups: a partition, by the right rule, and refused where a name is wrong."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from lightning_rad.optim.decay_groups import decay_groups
from lightning_rad.optim.lars import LARS
from lightning_rad.optim.schedules import WarmupCosine


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


class Two(nn.Module):
    """An image side and a text side, which holds a head of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.text = nn.ModuleDict({"body": nn.Linear(3, 4), "head": nn.Linear(4, 4)})


def test_submodules_with_a_rate_follow_in_groups_of_their_own() -> None:
    module = Two()
    groups = decay_groups(module, rates={"text": 0.1})
    assert [g.get("lr") for g in groups] == [None, None, 0.1, 0.1]
    assert [g.get("weight_decay") for g in groups] == [None, 0.0, None, 0.0]
    assert [g.get("adapt") for g in groups] == [None, False, None, False]
    assert [_names(module, g) for g in groups] == [
        {"image.0.weight"},
        {"image.0.bias", "image.1.weight", "image.1.bias"},
        {"text.body.weight", "text.head.weight"},
        {"text.body.bias", "text.head.bias"},
    ]


@pytest.mark.parametrize("order", [["text", "text.head"], ["text.head", "text"]])
def test_the_rate_of_an_inner_submodule_holds_in_it(order: list[str]) -> None:
    module = Two()
    rate = {"text": 0.1, "text.head": 0.2}
    groups = decay_groups(module, rates={name: rate[name] for name in order})
    found = {name: g.get("lr") for g in groups for name in _names(module, g)}
    assert found.keys() == dict(module.named_parameters()).keys()
    assert {lr for name, lr in found.items() if name.startswith("text.head")} == {0.2}
    assert {lr for name, lr in found.items() if name.startswith("text.body")} == {0.1}
    assert {lr for name, lr in found.items() if name.startswith("image")} == {None}


def test_without_rates_the_groups_are_the_ones_they_were() -> None:
    module = Two()
    for groups in (decay_groups(module), decay_groups(module, rates={})):
        assert [list(g) for g in groups] == [["params"], ["params", "weight_decay", "adapt"]]
        names = [
            [n for n, p in module.named_parameters() if (p.ndim > 1) is on] for on in (True, False)
        ]
        params = dict(module.named_parameters())
        for group, wanted in zip(groups, names, strict=True):
            assert [id(p) for p in group["params"]] == [id(params[n]) for n in wanted]


def test_all_rates_reach_the_optimiser_and_fall_by_the_same_factor() -> None:
    module = Two()
    groups = [
        {k: v for k, v in group.items() if k != "adapt"}
        for group in decay_groups(module, rates={"text": 0.03})
    ]
    optimizer = torch.optim.SGD(groups, lr=0.3)
    schedule = WarmupCosine(optimizer, 10, warmup=0.2)
    for step in range(9):
        factor = schedule.factor(step)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.3 * factor] * 2 + [0.03 * factor] * 2, rel=1e-12)
        before = {n: p.detach().clone() for n, p in module.named_parameters()}
        for p in module.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()
        for name, p in module.named_parameters():
            step_size = (0.03 if name.startswith("text") else 0.3) * factor
            torch.testing.assert_close(p.detach(), before[name] - step_size)
        schedule.step()


@pytest.mark.parametrize(
    ("rates", "said"),
    [
        ({"txet": 0.1}, r"rates: Two has no submodule 'txet'; it has \['image', 'text'\]"),
        ({"": 0.1}, "no submodule ''"),
        ({"text": -0.1}, "rates: -0.1 of 'text' is below 0"),
    ],
)
def test_a_rate_that_cannot_be_is_refused(rates: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        decay_groups(Two(), rates=rates)
