"""What a run does to go faster or to fit, without learning anything else by it."""

from __future__ import annotations

import logging
from typing import Any, Final, Literal, get_args

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import nn

from lightning_rad.nn.encoders import Encoder
from lightning_rad.training.block_calls import (
    Compiled,
    plain,
    recomputed,
    reset_calls,
    set_calls,
)

log = logging.getLogger(__name__)

Mode = Literal["default", "reduce-overhead", "max-autotune"]
GRAPHS: Final = ("reduce-overhead", "max-autotune")
"""Modes that record CUDA graphs."""


class Speed(Callback):
    """Compiles, recomputes and rounds as told; what would have no effect is refused by name.

    Blocks are those of `Encoder.blocks`. Precision, cuDNN's search and SyncBN are the trainer's
    (`trainer.precision`, `.benchmark`, `.sync_batchnorm`), the memory format is the encoder's
    (`channels_last`), fused steps are the optimiser's (`fused`): one line of YAML each.

    Args:
        compile: `blocks` compiles each block of the encoder and of its twins, in training. A
            machine that cannot is told once and trains on without. Gradients agree to rounding;
            dropout draws other numbers than without.
        compile_mode: Of torch.compile. `reduce-overhead` records CUDA graphs, for small networks
            that the host cannot launch fast enough; `max-autotune` also times several kernels,
            so that a resumed run may take others and differ by rounding.
        activation_checkpointing: `true`, or n for every n-th block: of these blocks of the encoder
            (its twins keep nothing anyway) backward computes once more what lies between their
            input and output. Less memory, at most a third more time, the same gradient.
        tf32: Whether float32 products on CUDA, in matrices and in convolutions, round their
            factors to 10 bits of mantissa; the loss's, too, where it is dense. Null leaves torch's
            own: convolutions do, matrices do not. For `trainer.precision: 32-true`.
    """

    def __init__(
        self,
        *,
        compile: bool | str = False,
        compile_mode: Mode = "default",
        activation_checkpointing: bool | int = False,
        tf32: bool | None = None,
    ) -> None:
        if compile not in (False, "blocks"):
            raise ValueError(f"speed.compile must be false or blocks, got {compile!r}")
        if compile_mode not in get_args(Mode):
            raise ValueError(f"speed.compile_mode: {compile_mode!r} is not in {get_args(Mode)}")
        if compile_mode != "default" and not compile:
            raise ValueError(f"speed.compile_mode: {compile_mode} needs speed.compile: blocks")
        if activation_checkpointing < 0:
            raise ValueError(
                f"speed.activation_checkpointing: {activation_checkpointing} is neither false, "
                "true nor a number of blocks"
            )
        self._mode: Mode | None = compile_mode if compile else None
        self._every = int(activation_checkpointing)
        self._tf32 = tf32
        self._compiled: Compiled | None = None
        self._called: list[nn.Module] = []
        self._before: tuple[str, bool] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Before the strategy wraps the module: refuse what has no effect, apply the rest."""
        device = trainer.strategy.root_device.type
        self._round(device, str(trainer.precision))
        if stage != "fit":
            return
        if torch.backends.cudnn.benchmark and device != "cuda":
            log.warning("trainer.benchmark: true has no effect on %s, only on CUDA", device)
        if self._mode in GRAPHS and device != "cuda":
            raise ValueError(
                f"speed.compile_mode: {self._mode} needs CUDA, this run is on {device}"
            )
        if self._mode or self._every:
            self._set_calls(pl_module)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave module and process as they were."""
        reset_calls(self._called)
        self._called = []
        if self._compiled:
            self._compiled.end()
            self._compiled = None
        if self._before:
            _set_rounding(*self._before)
            self._before = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """What CUDA graphs gave in the last step is no longer needed."""
        if self._mode in GRAPHS:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]

    def _set_calls(self, objective: LightningModule) -> None:
        encoders = [module for module in objective.modules() if isinstance(module, Encoder)]
        student = getattr(objective, "encoder", None)
        if not isinstance(student, Encoder):
            asked = "compile" if self._mode else "activation_checkpointing"
            raise ValueError(
                f"speed.{asked}: the encoder of {type(objective).__name__} is a "
                f"{type(student).__name__}, only {Encoder.__module__}.Encoder says its blocks"
            )
        blocks = [block for encoder in encoders for block in encoder.blocks()]
        own = student.blocks()
        if self._every > len(own):
            raise ValueError(
                f"speed.activation_checkpointing: {self._every}, of an encoder of {len(own)} "
                "blocks, is none of them"
            )
        again = set(own[self._every - 1 :: self._every]) if self._every else set()
        call, call_again = plain, recomputed
        if self._mode:
            self._compiled = Compiled(objective, self._mode, len(blocks))
            call, call_again = self._compiled.form(plain), self._compiled.form(recomputed)
            set_calls([block for block in blocks if block not in again], call)
        set_calls(again, call_again)
        self._called = blocks

    def _round(self, device: str, precision: str) -> None:
        if self._tf32 is None:
            return
        told = f"speed.tf32: {str(self._tf32).lower()}"
        if device != "cuda":
            raise ValueError(f"{told} needs CUDA, this run is on {device}: set it to null")
        if precision != "32-true":
            raise ValueError(
                f"{told} is of float32 products, trainer.precision is {precision}: set it to null, "
                "or the precision to 32-true"
            )
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        self._before = self._before or before
        _set_rounding("high" if self._tf32 else "highest", self._tf32)


def _set_rounding(matrices: str, convolutions: bool) -> None:
    torch.set_float32_matmul_precision(matrices)
    torch.backends.cudnn.allow_tf32 = convolutions
