"""A gaze predictor, small and not flat, and the checkpoint that a fit would leave of it."""

from __future__ import annotations

from typing import Any

import torch

from lightning_rad.modalities.gaze import Saliency
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.gaze_decoder import GazeDecoder
from lightning_rad.nn.pretrained import CONFIG_ENTRY
from lightning_rad.objectives.gaze_predictor import GazePredictor
from tests.checkpoints.trees import trained

SIDE, SIZE, MEAN, STD = 16, 32, 0.4, 0.3
ENCODER = {"name": "test_resnet", "kwargs": {"output_stride": 8}}
CONFIG: dict[str, Any] = {
    "class_path": "lightning_rad.objectives.gaze_predictor.GazePredictor",
    "init_args": {
        "encoder": {
            "class_path": "lightning_rad.nn.encoders.Encoder",
            "init_args": ENCODER | {"init_from": "weights_that_are_gone.pt"},
        },
        "gaze": {"source": "recorded", "side": SIDE, "spread": 0.03},
        "decoder": {
            "class_path": "lightning_rad.nn.gaze_decoder.GazeDecoder",
            "init_args": {"width": 8, "side": SIDE},
        },
        "correlation": 0.5,
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 1e-3}},
        "schedule": {
            "class_path": "lightning_rad.optim.schedules.WarmupCosine",
            "init_args": {"warmup": 0.1},
        },
        "seed": 0,
    },
}


def predictor(seed: int = 0) -> GazePredictor:
    """With batch statistics of its own, so that maps of training are not those of evaluation."""
    torch.manual_seed(seed)
    made = GazePredictor(
        Encoder(ENCODER["name"], kwargs=ENCODER["kwargs"]),  # type: ignore[arg-type]
        gaze=Saliency(side=SIDE),
        decoder=lambda width: GazeDecoder(width, width=8, side=SIDE),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
    )
    with torch.no_grad():
        made.decoder.score.weight.mul_(20)
        for _ in range(3):
            made.encoder(torch.randn(16, 1, SIZE, SIZE) + 1)
    return made.eval()


def tree(seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A checkpoint of the predictor after a fit."""
    how = {"size": SIZE, "mean": MEAN, "std": STD, "side": SIDE, "spread": 0.03}
    body = trained() | {
        "state_dict": predictor(seed).state_dict(),
        "objective": "GazePredictor",
        CONFIG_ENTRY: CONFIG,
        "gaze": how,
    }
    return {k: v for k, v in (body | changes).items() if v is not None}
