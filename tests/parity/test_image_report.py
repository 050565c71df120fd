"""Image-report contrast, from images and tokens on, against the losses of open_clip.

Letters in names are those of the conformance list; the others are in tests/objectives.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor
from torch.nn.functional import normalize

from lightning_rad.objectives.image_report import ImageReport
from lightning_rad.schema import ViewBatch
from tests.objectives.test_image_report import batches, image_report


def ours(objective: ImageReport, batch: ViewBatch) -> tuple[Tensor, dict[str, Tensor]]:
    loss = objective.terms(objective.embed(batch), batch)["contrast"]
    return loss, gradients(objective, loss)


def gradients(objective: ImageReport, loss: Tensor) -> dict[str, Tensor]:
    named = dict(objective.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))


def towers(objective: ImageReport, batch: ViewBatch) -> tuple[Tensor, Tensor]:
    made = objective.embed(batch)
    return normalize(made["image"][0], dim=1), normalize(made["text"][0], dim=1)


def assert_same(
    objective: ImageReport, mine: tuple[Tensor, dict[str, Tensor]], theirs: Tensor
) -> None:
    loss, got = mine
    torch.testing.assert_close(loss, theirs, rtol=1e-12, atol=1e-13)
    wanted = gradients(objective, theirs)
    assert {"log_scale", "encoder.layers.0.weight", "text.table.weight"} <= wanted.keys()
    assert min(float(wanted[name].abs().max()) for name in ("log_scale", "text.table.weight")) > 0
    for name, value in wanted.items():
        torch.testing.assert_close(got[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("temperature", [0.5, 0.07, 0.01])
def test_image_report_a_clip_is_the_loss_of_open_clip(temperature: float, backend: Any) -> None:
    """Value, and the gradient of every parameter, the temperature among them."""
    objective = image_report(temperature=temperature, faithful=True, backend=backend)
    [batch] = batches(same=[(0, 5)])
    image, text = towers(objective, batch)
    theirs = ClipLoss()(image, text, objective.log_scale.exp())
    assert_same(objective, ours(objective, batch), theirs)


@pytest.mark.parametrize("backend", ["reference", "fused"])
@pytest.mark.parametrize("bias", [-10.0, -2.0, 0.5])
def test_image_report_b_siglip_is_the_loss_of_open_clip(bias: float, backend: Any) -> None:
    """Value, and the gradient of every parameter, temperature and bias among them."""
    objective = image_report(form="siglip", bias=bias, faithful=True, backend=backend)
    [batch] = batches(same=[(0, 5)])
    image, text = towers(objective, batch)
    theirs = SigLipLoss()(image, text, objective.log_scale.exp(), objective.bias)
    mine = ours(objective, batch)
    assert float(mine[1]["bias"].abs()) > 1e-4
    assert_same(objective, mine, theirs)


def test_without_equal_texts_it_does_not_matter_whether_it_is_faithful() -> None:
    for form in ("clip", "siglip"):
        losses = {
            faithful: ours(image_report(form=form, faithful=faithful), batches()[0])[0].item()
            for faithful in (False, True)
        }
        assert math.isclose(*losses.values(), rel_tol=1e-13)
