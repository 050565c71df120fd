"""Sigmoid pairs over ranks: the loss and every gradient of one process on the global batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lightning_rad.collectives import gather_detached, gather_rows, rank, world_size
from lightning_rad.kernels.temperature import Learned
from lightning_rad.losses.sigmoid_pairs import sigmoid_pairs
from tests.gloo import run_on_ranks

STUDIES = 8
Outcome = tuple[float, dict[str, Tensor]]
WAYS = ["gathered", "gathered_with_gradient"]


class Towers(nn.Module):
    """Two encoders, SigLIP's log of 1/t, and its bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 5))
        self.text = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.Linear(16, 5))
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        self.bias = nn.Parameter(torch.tensor(-3.0))
        self.double()

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, ...]:
        """Embeddings, the temperature, the bias."""
        return self.image(images), self.text(texts), (-self.log_scale).exp(), 1 * self.bias


def _batch(images_each: int) -> tuple[Tensor, Tensor]:
    """[S, 6 or 4]: `images_each` images of every study, study by study, and one text."""
    make = torch.Generator().manual_seed(1)
    images = torch.randn(STUDIES * images_each, 6, generator=make, dtype=torch.float64)
    return images, torch.randn(STUDIES, 4, generator=make, dtype=torch.float64)


def _labels(images_each: int, reports: int) -> dict[str, Any]:
    """Of all ranks; reports: 0 for no groups, else so many different ones, the first unknown."""
    study = torch.arange(STUDIES)
    ids = study.repeat_interleave(images_each), study
    groups = (ids[0] % reports, ids[1] % reports) if reports else None
    return {"ids": None if images_each == 1 else ids, "groups": groups}


def _loss(towers: nn.Module, images_each: int, reports: int, way: str, backend: Any) -> Tensor:
    images, texts = (x.chunk(world_size())[rank()] for x in _batch(images_each))
    image_ND, text_MD, t, b = towers(images, texts)
    how: dict[str, Any] = {
        "temperature": Learned(t, 0.01),
        "bias": b,
        "backend": backend,
        **_labels(images_each, reports),
    }
    if way == "gathered":
        gathered = gather_detached(image_ND), gather_detached(text_MD)
        return sigmoid_pairs(image_ND, text_MD, gathered=gathered, part=rank(), **how)
    study = torch.arange(STUDIES)
    how["ids"] = study.repeat_interleave(images_each).chunk(world_size())[rank()], study
    if how["groups"] is not None:
        how["groups"] = how["groups"][0].chunk(world_size())[rank()], how["groups"][1]
    return sigmoid_pairs(image_ND, gather_rows(text_MD), **how)


def _on_this_rank(*how: Any) -> Outcome:
    model = DistributedDataParallel(Towers())
    loss = _loss(model, *how)
    (0.7 * loss).backward()
    mean = gather_detached(loss[None]).mean().item()
    grads = {k: p.grad for k, p in model.module.named_parameters() if p.grad is not None}
    return mean, grads


def _on_one_process(images_each: int, reports: int) -> Outcome:
    towers = Towers()
    images, texts = _batch(images_each)
    image_ND, text_MD, t, b = towers(images, texts)
    how: dict[str, Any] = {"temperature": Learned(t, 0.01), "bias": b, "backend": "reference"}
    loss = sigmoid_pairs(image_ND, text_MD, **how, **_labels(images_each, reports))
    (0.7 * loss).backward()
    return loss.item(), {k: p.grad for k, p in towers.named_parameters() if p.grad is not None}


def _off_by(grads: dict[str, Tensor], want: dict[str, Tensor]) -> float:
    """Largest relative error of a parameter's gradient, in norms."""
    assert grads.keys() == want.keys() >= {"log_scale", "bias"}
    return max(((grads[k] - g).norm() / g.norm()).item() for k, g in want.items())


@pytest.mark.parametrize("backend", ["fused", "reference"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("images_each", "reports"), [(1, 0), (1, 3), (3, 3)])
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_give_the_gradient_of_one_process(
    ranks: int, images_each: int, reports: int, way: str, backend: str
) -> None:
    want_loss, want = _on_one_process(images_each, reports)
    for loss, grads in run_on_ranks(_on_this_rank, ranks, images_each, reports, way, backend):
        assert loss == pytest.approx(want_loss, rel=1e-12)
        assert _off_by(grads, want) < 1e-10


def _with_gradient_cut(_: int) -> Outcome:
    """What a gather that only detaches gives: the others' images never reach this rank's texts."""
    model = DistributedDataParallel(Towers())
    images, texts = (x.chunk(world_size())[rank()] for x in _batch(1))
    image_ND, text_MD, t, b = model(images, texts)
    every = gather_detached(text_MD)
    own = rank() * len(text_MD)
    every = torch.cat([every[:own], text_MD, every[own + len(text_MD) :]])
    ids = torch.arange(STUDIES).chunk(world_size())[rank()], torch.arange(STUDIES)
    loss = sigmoid_pairs(image_ND, every, temperature=Learned(t, 0.01), bias=b, ids=ids)
    (0.7 * loss).backward()
    grads = {k: p.grad for k, p in model.module.named_parameters() if p.grad is not None}
    return gather_detached(loss[None]).mean().item(), grads


def test_a_detached_gather_keeps_the_loss_and_is_seen_in_the_gradient() -> None:
    want_loss, want = _on_one_process(1, 0)
    for loss, grads in run_on_ranks(_with_gradient_cut, 2, 0):
        assert loss == pytest.approx(want_loss, rel=1e-12)
        assert _off_by(grads, want) > 0.01


def test_groups_reach_across_ranks() -> None:
    """Studies 1, 4, 7 and 2, 5 lie on both ranks: leaving them in would give another loss."""
    assert _on_one_process(1, 3)[0] < 0.99 * _on_one_process(1, 0)[0]
