"""What a callback that only watches asks of the trainer, and how ranks get its numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sized
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.trainer.states import TrainerFn

from lightning_rad.collectives import gather_uneven
from lightning_rad.manifest import write_atomically


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


def logged(
    module: LightningModule, values: dict[str, float], device: torch.device
) -> dict[str, float]:
    """Log the numbers of rank 0, which alone gives any, on every rank; a collective call."""
    text = json.dumps(values).encode() if values else b""
    sent = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.empty(0).byte()
    received = gather_uneven(sent.to(device)).cpu().numpy().tobytes()
    result: dict[str, float] = json.loads(received or b"{}")
    # equal on all ranks: max hands a number on exactly where a mean over ranks would round
    module.log_dict(result, sync_dist=True, reduce_fx="max", batch_size=1)
    return result


def heading(trainer: Trainer, what: str, stage: str) -> str:
    """What stands above a table of `validate` or `test`."""
    note = measured_weights(trainer)["note"]
    return f"{what} '{stage}'" + (f", {note}" if note else "")


def write_record(
    trainer: Trainer, file: Path, body: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    """A record as JSON, `<kind>_<stage>.json`: of which weights, what was found, and how."""
    stage = {"stage": file.stem.partition("_")[2]}
    whole = stage | measured_weights(trainer) | dict(body) | {"settings": settings}
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, (json.dumps(whole, indent=1) + "\n").encode())
