"""Every objective over a small transformer, and the same run on however many ranks there are."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from pytorch_lightning.plugins.precision import DoublePrecision
from torch import distributed as dist

from lightning_rad.modalities.evidence import FindingReading
from lightning_rad.modalities.gaze import Saliency
from lightning_rad.modalities.reading import ReadingSettings
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.nn.gaze_decoder import GazeDecoder
from lightning_rad.nn.projector import Projector
from lightning_rad.nn.radiomic_encoder import RadiomicEncoder
from lightning_rad.nn.report_decoder import ReportDecoder
from lightning_rad.objectives.barlow_twins import BarlowTwins
from lightning_rad.objectives.base import Objective
from lightning_rad.objectives.byol import BYOL
from lightning_rad.objectives.c2l import C2L, Contrast
from lightning_rad.objectives.gaze_predictor import GazePredictor
from lightning_rad.objectives.image_report import ImageReport, TextSide
from lightning_rad.objectives.knowledge_contrast import KnowledgeContrast
from lightning_rad.objectives.knowledge_settings import FindingSide, RadiomicSide
from lightning_rad.objectives.micle import MICLe
from lightning_rad.objectives.moco import MoCo
from lightning_rad.objectives.moco_v3 import MoCoV3
from lightning_rad.objectives.pair_contrast import PairContrast
from lightning_rad.objectives.refers import REFERS
from lightning_rad.objectives.simclr import SimCLR
from lightning_rad.objectives.vicreg import VICReg
from lightning_rad.training.strategies import DDP, Sharded
from tests.objectives.evidence import suited, views_of
from tests.objectives.fixed import Snapshot, fit_steps, random_batches, with_reports
from tests.objectives.knowledge import NAMES
from tests.objectives.small_nets import TOKENIZER, small_text

VIT = {"depth": 2, "embed_dim": 12, "num_heads": 2, "patch_size": 8, "dynamic_img_size": True}
ROWS = 8


def vit(**changes: Any) -> Encoder:
    return Encoder("vit_tiny_patch16_224", image_size=16, kwargs=VIT, **changes)


def head(width: int) -> Projector:
    return Projector(width, hidden=10, out_features=7, norm="layer")


def queue(width: int) -> FeatureQueue:
    return FeatureQueue(width, length=45)


def sgd(groups: Any) -> torch.optim.Optimizer:
    plain = [{k: v for k, v in group.items() if k != "adapt"} for group in groups]
    return torch.optim.SGD(plain, lr=0.1, momentum=0.9)


READS: dict[str, Any] = {
    "reports": ReadingSettings(TOKENIZER, limit=12),
    "text": TextSide(small_text, head),
}

WRITES = READS | {
    "text": small_text,
    "decoder": partial(ReportDecoder, width=8, heads=2, feedforward=10, dropout=0.0),
    "text_rate": 0.05,
}


def pooled_vit(**changes: Any) -> Encoder:
    """Whose features are its patches' mean, normed: heat is true Grad-CAM."""
    options = VIT | {"class_token": False, "global_pool": "avg"}
    return Encoder("vit_tiny_patch16_224", image_size=16, kwargs=options, **changes)


def unnormed_resnet(**changes: Any) -> Encoder:
    """Without statistics of the batch, of 2 x 2 places, whose mean is the features."""
    options = {"norm_layer": "groupnorm1", "output_stride": 8}
    return Encoder("test_resnet", kwargs=options, **changes)


SEES: dict[str, Any] = {
    "encoder": pooled_vit,
    "findings": FindingSide(FindingReading(NAMES)),
    "radiomic": RadiomicSide(partial(RadiomicEncoder, width=16), head),
}

KINDS: dict[str, tuple[type[Objective], dict[str, Any]]] = {
    "simclr": (SimCLR, {"temperature": 0.2}),
    "micle": (MICLe, {}),
    "moco": (MoCo, {"queue": queue, "momentum": 0.9}),
    "moco_v3": (MoCoV3, {"predictor": head, "momentum": 0.9}),
    "byol": (BYOL, {"predictor": head, "momentum": 0.9}),
    "c2l": (
        C2L,
        {"queue": queue, "partners": 2, "momentum": 0.9, "contrast": Contrast(nce_images=80)},
    ),
    "barlow_twins": (BarlowTwins, {}),
    "vicreg": (VICReg, {}),
    "image_report_clip": (ImageReport, READS),
    "image_report_siglip": (
        ImageReport,
        READS | {"contrast": PairContrast("sigmoid", temperature=0.1)},
    ),
    "refers": (REFERS, WRITES),
    "knowledge_contrast": (KnowledgeContrast, SEES | {"encoder": unnormed_resnet}),
    "knowledge_contrast_grad_cam": (KnowledgeContrast, SEES),
    "gaze_predictor": (
        GazePredictor,
        {"gaze": Saliency(side=8), "decoder": partial(GazeDecoder, width=8, side=8)},
    ),
}


def made(
    name: str, optimizer: Callable[..., Any] = sgd, seed: int = 0, **changes: Any
) -> Objective:
    """The objective in float64, its encoder's weights so large that images differ in it."""
    torch.manual_seed(seed)
    kind, given = KINDS[name]
    encoder = changes.pop("encoder", given.get("encoder", vit))()
    with torch.no_grad():
        for p in encoder.parameters():
            p.mul_(8 if p.ndim > 1 else 1)
    parts = {"projector": head, "optimizer": optimizer} | given | changes | {"encoder": encoder}
    if kind in (REFERS, GazePredictor):
        del parts["projector"]
    return kind(**parts).double()  # type: ignore[arg-type]


def steps(objective: Objective, count: int = 3, **how: Any) -> list[Snapshot]:
    """That many steps in float64, under the strategy that is given, of the ranks there are."""
    in_float64: dict[str, Any] = {"precision": None, "plugins": [DoublePrecision()]}
    batches = random_batches(count, rows=ROWS, views=views_of(objective))
    batches = suited(objective, with_reports(batches, same=[(0, 5), (2, 3, 7)]))
    for batch in batches:  # patients of several bags, for MICLe
        batch.patient = torch.tensor([5, 6, 0, 5, 6, 5, 0, 7])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return fit_steps(objective, batches, unit="study", **(in_float64 | how))


def on_ranks(objective: Objective, strategy: Any, *, nodes: int = 1, **how: Any) -> list[Snapshot]:
    """The same inside the process group that `run_on_ranks` made."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    a_node = ranks // nodes
    launched = {
        "RANK": rank,
        "LOCAL_RANK": rank % a_node,
        "GROUP_RANK": rank // a_node,
        "WORLD_SIZE": ranks,
        "LOCAL_WORLD_SIZE": a_node,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
        "TORCHELASTIC_RUN_ID": "tests",
    }
    spread: dict[str, Any] = {
        "strategy": strategy,
        "devices": a_node,
        "num_nodes": nodes,
        "use_distributed_sampler": False,
    }
    with patch.dict(os.environ, {name: str(value) for name, value in launched.items()}):
        return steps(objective, **(spread | how))


STRATEGIES: dict[str, Callable[[], Any]] = {"ddp": DDP, "sharded": Sharded}
