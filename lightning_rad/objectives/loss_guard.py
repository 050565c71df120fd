"""A loss that is no number, or far too large, moves nothing; several in a row end the run.

The loss of every rank is looked at between forward and backward. One integer goes round the ranks
and home to the host while backward runs, so neither the device nor the host waits for the other
more than it would. Where any rank's loss is bad, in any micro-batch of an optimiser step, the step
is left out on all of them: weights, optimiser, twin, queue and buffers stay as they were before it;
the stream and the schedule go on.

What it cannot see is a gradient that overflows under a finite loss, in float32 or bfloat16 (float16
scaling leaves such a step out itself). Those weights are spoilt at once, every later loss is bad,
and the run ends after `stop_after` steps. What is lost is then what came after the newest
checkpoint, which is not overwritten.
"""

from __future__ import annotations

import json
import logging
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from lightning_rad.collectives import Largest, rank, world_size
from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.schema import ViewBatch

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Guard:
    """What is taken for a bad loss, and how much of it.

    Args:
        stop_after: Bad steps in a row that end the run; null leaves them out without end.
        max_loss: A loss above it, in size, is as bad as one that is no number; null is any.
    """

    stop_after: int | None = 3
    max_loss: float | None = None

    def __post_init__(self) -> None:
        if self.stop_after is not None and self.stop_after < 1:
            raise ValueError(f"guard.stop_after must be at least 1 or null, got {self.stop_after}")
        if self.max_loss is not None and not self.max_loss > 0:
            raise ValueError(f"guard.max_loss must be above 0 or null, got {self.max_loss}")

    def bad(self, loss: Tensor) -> Tensor:
        """Whether a loss is bad: a bool of the loss's device, which nothing waits for."""
        most = torch.finfo(loss.dtype).max if self.max_loss is None else self.max_loss
        return ~(loss.detach().abs() <= most)  # NaN is no smaller than anything


class LossDivergedError(RuntimeError):
    """Too many losses in a row were bad; the run is not to be started again as it is."""


@dataclass(slots=True)
class _Seen:
    """A micro-batch of the present step or of a bad one: its loss and the numbers of its rows."""

    step: int
    positions: tuple[int, ...]
    loss: Tensor
    unit: Tensor
    image: Tensor


class LossGuard:
    """Watches the losses of one fit; one `begin`, `see` and `settle` a micro-batch, then `end`.

    skipped: steps left out so far, in this run and those it resumed; in_a_row: the last of them.
    """

    def __init__(self, settings: Guard = Guard()) -> None:
        self.settings = settings
        self.skipped = self.in_a_row = 0
        self.skipping = False
        self._seen: list[_Seen] = []
        self._bad: deque[list[_Seen]] = deque(maxlen=settings.stop_after or 1)
        self._verdict: Largest | None = None
        self._kept: list[Tensor] = []

    def begin(self, module: LightningModule, micro: int) -> None:
        """Before the forward pass: keep what it may change, at the first micro-batch of a step."""
        if micro:
            return
        self.skipping, self._seen = False, []
        buffers = _buffers(module)
        if len(self._kept) != len(buffers):
            self._kept = [buffer.clone() for buffer in buffers]
        else:
            _copy(self._kept, buffers)

    def see(self, module: LightningModule, loss: Tensor, batch: ViewBatch) -> None:
        """After the forward pass; the last micro-batch of a step asks the other ranks."""
        trainer = module.trainer
        positions = tuple(getattr(trainer.datamodule, "positions", ()))  # type: ignore[attr-defined]
        loss = loss.detach()
        self._seen.append(_Seen(trainer.global_step, positions, loss, batch.unit, batch.image))
        if not trainer.fit_loop._should_accumulate():
            losses = torch.stack([seen.loss for seen in self._seen])
            self._verdict = Largest(self.settings.bad(losses).any() * (rank() + 1))

    def settle(self, module: LightningModule) -> None:
        """After backward is queued: where the step is bad, take its gradients away.

        A float16 loss scale insists on looking at gradients and leaves the step out for one that is
        no number, so there they are made so.
        """
        if self._verdict is None:
            return
        worst, self._verdict = self._verdict.read(), None
        self.skipping = worst > 0
        if not self.skipping:
            self.in_a_row = 0
            self._bad.clear()
            return
        scaler = getattr(module.trainer.precision_plugin, "scaler", None)
        scaled = scaler is not None and scaler.is_enabled()
        for parameter in module.parameters():
            if not scaled:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.fill_(float("nan"))
        _copy(_buffers(module), self._kept)
        self._count(module, worst - 1)

    def _count(self, module: LightningModule, worst: int) -> None:
        self.skipped += 1
        self.in_a_row += 1
        self._bad.append(self._seen)
        step = module.trainer.global_step
        losses = ", ".join(f"{float(seen.loss):g}" for seen in self._seen)
        bad = any(bool(self.settings.bad(seen.loss)) for seen in self._seen)
        if bad or rank() == 0:
            log.warning(
                "step %d is left out: the loss of rank %d is bad (rank %d: %s); "
                "%d in a row, %d in all",
                *(step, worst, rank(), losses, self.in_a_row, self.skipped),
            )
        for logger in module.trainer.loggers:
            logger.log_metrics({"train/skipped": float(self.skipped)}, step)

    def end(self, module: LightningModule) -> None:
        """After the step. Raises LossDivergedError, alike on all ranks, after too many bad ones."""
        most = self.settings.stop_after
        if not self.skipping or most is None or self.in_a_row < most:
            return
        step, root = module.trainer.global_step, module.trainer.default_root_dir
        folder = Path(root) / "bad_batches"
        try:
            self._write(folder / f"step-{step}-rank-{rank()}.json", module)
        except OSError as error:
            log.warning("the bad batches of rank %d could not be written: %s", rank(), error)
        raise LossDivergedError(
            f"the losses of {most} steps in a row, to step {step}, were bad: the run ends, its "
            f"newest checkpoint stays as it is; the batches are named in {folder}"
        )

    def _write(self, path: Path, module: LightningModule) -> None:
        """What each bad batch of this rank was made of."""
        body = {
            "rank": rank(),
            "ranks": world_size(),
            "guard": asdict(self.settings),
            "batches": [
                self._describe(module, micro, seen)
                for step in self._bad
                for micro, seen in enumerate(step)
            ],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(body, indent=1) + "\n")

    def _describe(self, module: LightningModule, micro: int, seen: _Seen) -> dict[str, Any]:
        unit, image = seen.unit.tolist(), seen.image.tolist()
        data = module.trainer.datamodule  # type: ignore[attr-defined]
        rows: dict[str, Any] = {"rows": [{"unit": u} for u in unit]}
        if hasattr(data, "origin"):
            rows = data.origin(seen.positions, unit, image)
        loss = {"loss": str(float(seen.loss)), "bad": bool(self.settings.bad(seen.loss))}
        return {"step": seen.step, "micro_batch": micro} | loss | rows

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Count on from a checkpoint's."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]


def _buffers(module: nn.Module) -> list[Tensor]:
    """What a forward pass may change: every buffer but a queue's, which only `advance` changes."""
    return [
        buffer
        for part in module.modules()
        if not isinstance(part, FeatureQueue)
        for buffer in part.buffers(recurse=False)
    ]


@torch.no_grad()
def _copy(to: list[Tensor], source: list[Tensor]) -> None:
    """A few calls for all tensors: those of one type at a time."""
    for dtype in {x.dtype for x in to}:
        chosen = [i for i, x in enumerate(to) if x.dtype == dtype]
        torch._foreach_copy_([to[i] for i in chosen], [source[i] for i in chosen])
