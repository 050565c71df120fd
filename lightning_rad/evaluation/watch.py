"""What a callback that only watches asks of the trainer, and how ranks get its numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sized
from pathlib import Path

import torch
from pytorch_lightning import Trainer
from pytorch_lightning.trainer.states import TrainerFn

from lightning_rad.collectives import gather_uneven


def fitting(trainer: Trainer) -> bool:
    """Whether the run trains, and validates in between."""
    return trainer.state.fn == TrainerFn.FITTING


def cut_short(trainer: Trainer, collected: Mapping[int, Sized]) -> bool:
    """Whether a stop of the run ended this validation before a loader's last batch was collected.

    collected: what a callback has of each loader it looks at, one item a batch. Not what Lightning
    says of the last batch: the callback that stops the run may come before the one that collects.
    """
    due = trainer.num_val_batches
    return fitting(trainer) and any(len(had) < due[loader] for loader, had in collected.items())


def untrained(trainer: Trainer) -> bool:
    """Whether the encoder is as constructed: no checkpoint was named, no step was taken."""
    return trainer.ckpt_path is None and trainer.global_step == 0


def measured_weights(trainer: Trainer) -> dict[str, str | None]:
    """What a record of `validate` or `test` says of the weights: their checkpoint, or a note."""
    # the checkpoint itself, where the path asked for was a folder of them
    read = getattr(trainer.strategy.checkpoint_io, "loaded", None) or trainer.ckpt_path
    return {
        "checkpoint": None if trainer.ckpt_path is None else str(read),
        "note": "no checkpoint: the encoder as constructed" if untrained(trainer) else None,
    }


def findings_of(trainer: Trainer) -> tuple[str, ...]:
    """The names of the label columns, from the datamodule."""
    labels = getattr(trainer.datamodule, "labels", None)  # type: ignore[attr-defined]
    if labels is None:
        raise ValueError("a probe needs a datamodule whose `labels` names the findings")
    return tuple(labels)


def folder_of(trainer: Trainer) -> Path:
    """Where records go: the logger's folder; a collective call."""
    return Path(trainer.log_dir or trainer.default_root_dir)


def from_rank_zero(values: dict[str, float], device: torch.device) -> dict[str, float]:
    """The numbers of rank 0, which alone gives any, on every rank, exactly; a collective call."""
    text = json.dumps(values).encode() if values else b""
    sent = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(0).byte()
    received = gather_uneven(sent.to(device)).cpu().numpy().tobytes()
    result: dict[str, float] = json.loads(received or b"{}")
    return result
