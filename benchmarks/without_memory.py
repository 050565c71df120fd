"""Objectives of configs/objective on the meta device: parameters that have sizes and no values."""

from __future__ import annotations

import importlib
import tempfile
from functools import partial
from json import dumps
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_rad.modalities.reading import ReadingSettings
from lightning_rad.modalities.words import END, START, UNKNOWN
from lightning_rad.nn.encoders import Encoder
from lightning_rad.objectives.base import Objective
from lightning_rad.objectives.image_report import TextSide
from lightning_rad.objectives.pair_contrast import PairContrast

CONFIGS = Path(__file__).parents[1] / "configs" / "objective"
VOCABULARY = 10_000
"""Words of a tokeniser, which a config leaves to its user: what `reports tokenizer` makes at most,
and what REFERS has."""
PARTS = ("projector", "predictor", "queue", "decoder", "text")


def shipped(config: str, **encoder: Any) -> Objective:
    """The objective of a file of configs/objective, with an encoder changed."""
    model = yaml.safe_load((CONFIGS / f"{config}.yaml").read_text())["model"]
    given = model["init_args"]
    parts = {name: _part(given[name]) for name in PARTS if name in given}
    if given.get("contrast", {}).get("learned"):
        parts["contrast"] = PairContrast(**given["contrast"])
    with tempfile.TemporaryDirectory() as folder, torch.device("meta"):
        if "reports" in given:
            settings = given["reports"] | {"tokenizer": _tokenizer(Path(folder))}
            parts["reports"] = ReadingSettings(**settings)
        net = Encoder(**(given["encoder"]["init_args"] | encoder))
        objective: Objective = _named(model["class_path"])(net, optimizer=torch.optim.SGD, **parts)
    return objective


def _part(given: dict[str, Any]) -> Any:
    """A constructor that lacks what the objective gives it; of several parts, their group."""
    if "class_path" in given:
        return partial(_named(given["class_path"]), **given["init_args"])
    return TextSide(_part(given["encoder"]), _part(given["projector"]))


def _named(path: str) -> Any:
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)


def _tokenizer(folder: Path) -> str:
    """A file of so many words, which none will read."""
    words = [UNKNOWN, START, END, *map(str, range(VOCABULARY - 3))]
    vocabulary = {word: number for number, word in enumerate(words)}
    model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": UNKNOWN}
    file = folder / "tokenizer.json"
    file.write_text(dumps({"version": "1.0", "added_tokens": [], "model": model}))
    return str(file)
