"""Which region of each image radiomics are taken of.

Shape letters: B images, C findings, K boxes of an image, g sides of a heat map.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_rad.modalities.boxes import area, clipped
from lightning_rad.modalities.heat import fallback
from lightning_rad.schema import Findings, ViewBatch


@dataclass(frozen=True, slots=True)
class Regions:
    """A region an image: boxes [B, 4] in pixels of the view, and where each comes from, [B] bool.

    One that is neither annotated nor hot is the fixed box of `modalities.heat`.
    """

    boxes: Tensor
    annotated: Tensor
    hot: Tensor

    def shares(self) -> dict[str, Tensor]:
        """The share of images whose region is of each origin."""
        origins = {
            "annotated": self.annotated,
            "heat": self.hot,
            "fallback": ~(self.annotated | self.hot),
        }
        return {name: which.float().mean() for name, which in origins.items()}


@torch.no_grad()
def driving(logits_BC: Tensor, labels_BC: Tensor) -> Tensor:
    """[B] the finding that drives an image's region.

    The most probable of those that are known to be present; of all, where none is.
    """
    present_BC = labels_BC == 1
    candidate_BC = present_BC | ~present_BC.any(1, keepdim=True)
    return logits_BC.detach().masked_fill(~candidate_BC, -torch.inf).argmax(1)


@torch.no_grad()
def regions_of(
    findings: Findings | None,
    driving_B: Tensor,
    seen: tuple[Tensor, Tensor] | None,
    size: tuple[int, int],
) -> Regions:
    """The largest box of the driving finding, else the largest box, else the heat map's box.

    findings: of one view, boxes [B, K, 4]; None leaves annotated boxes aside. A box without area in
    the view is none. seen: boxes [B, 4] of heat maps, and which were found [B]; None is no map,
    which leaves the fixed box. size: height and width of the view.
    """
    if seen is not None:
        boxes_B4, hot_B = seen
    else:
        hot_B = torch.zeros_like(driving_B, dtype=torch.bool)
        like = torch.zeros(len(driving_B), 4, device=driving_B.device)
        boxes_B4 = fallback(like, size).expand_as(like)
    annotated_B = torch.zeros_like(hot_B)
    if findings is not None and findings.boxes.shape[1]:
        given_BK4 = clipped(findings.boxes, *size).to(boxes_B4.dtype)
        area_BK = area(given_BK4).nan_to_num(nan=0.0)
        own_BK = findings.finding == driving_B[:, None]
        # any box of the driving finding before any other
        rank_BK = area_BK + (own_BK & (area_BK > 0)) * (size[0] * size[1] + 1.0)
        best_B = rank_BK.argmax(1)
        annotated_B = area_BK.amax(1) > 0
        chosen_B4 = given_BK4[torch.arange(len(best_B), device=best_B.device), best_B]
        boxes_B4 = torch.where(annotated_B[:, None], chosen_B4, boxes_B4)
    return Regions(boxes_B4, annotated_B, hot_B & ~annotated_B)


def findings_of(batch: ViewBatch) -> Findings:
    """What is known of the one view of a batch, [B, ...]; `setup` has asked for it."""
    assert batch.findings is not None, "the data gives no findings"
    whole = batch.findings
    return Findings(whole.labels[0], whole.boxes[0], whole.finding[0])
