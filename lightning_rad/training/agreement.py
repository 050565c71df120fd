"""All ranks act on what any of them wants at the same step, and no device waits for it.

    agreement = Agreement.of(trainer)      # the callback of this trainer
    agreement.ask(Flag.SAVE)               # on any rank, at any time, from a signal handler too
    if agreement.take(Flag.STOP): ...      # true on all ranks in the same hook of the same step

An agreed SAVE, which comes with every STOP, is handed on to `Checkpoints` here.
"""

from __future__ import annotations

from datetime import timedelta
from enum import IntEnum
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from lightning_rad.collectives import Ballot, Vote
from lightning_rad.training.checkpoint import Checkpoints

# longer than any validation or checkpoint that rank 0 does alone; the watchdog is what ends a hang
_PATIENCE = timedelta(hours=2)


class Flag(IntEnum):
    """What a rank may ask of all; of several values asked for, the largest is agreed on."""

    STOP = 0
    SAVE = 1


class Agreement(Callback):
    """Agrees on flags every few optimiser steps and validation batches.

    Every `every` of them (a tick each) the answer of the last vote is read and the next vote is
    begun: an all-reduce of eight bytes between hosts, in a group of its own, which has `every`
    ticks of time. What is asked before a tick holds on all ranks at most `2 * every` ticks later,
    at the same one; on one process, at the next. Validation batches count only where all ranks
    have equally many. A checkpoint by the minute is asked for by rank 0's clock.

    Args:
        every: Ticks from the beginning of a vote to its reading.
    """

    def __init__(self, every: int = 2) -> None:
        if every < 1:
            raise ValueError(f"agreement.every must be at least 1, got {every}")
        self.every = every
        self._asked = [0] * len(Flag)
        self._agreed = [0] * len(Flag)
        self._ballot: Ballot | None = None
        self._vote: Vote | None = None
        self._alone = True
        self._ticks = 0
        self._in_validation = self._due = False
        self._savers: list[Checkpoints] = []

    @staticmethod
    def of(trainer: Trainer) -> Agreement | None:
        """The agreement among a trainer's callbacks, or None."""
        return next((c for c in trainer.callbacks if isinstance(c, Agreement)), None)  # type: ignore[attr-defined]

    def ask(self, flag: Flag, value: int = 1) -> None:
        """Raise a flag on this rank."""
        self._asked[flag] = max(self._asked[flag], value)

    def take(self, flag: Flag) -> int:
        """What was agreed on for a flag, which is lowered; 0 where nothing was."""
        value, self._agreed[flag] = self._agreed[flag], 0
        return value

    def meet(self, seconds: float) -> bool:
        """Wait for all ranks; False where one did not come within so many seconds."""
        return self._ballot is None or self._ballot.meet(timedelta(seconds=seconds))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the group, once the strategy has made its own."""
        if stage == "fit" and self._ballot is None:
            self._ballot, self._alone = Ballot(_PATIENCE), trainer.world_size == 1
        self._savers = [c for c in trainer.callbacks if isinstance(c, Checkpoints)]  # type: ignore[attr-defined]
        for saver in self._savers:
            saver.agreed = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count; what was asked during set-up stays asked."""
        self._ticks, self._vote = 0, None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """An optimiser step is a tick; a micro-batch in between is none."""
        if trainer.fit_loop._should_accumulate():
            return
        due = trainer.is_global_zero and any(saver.due() for saver in self._savers)
        if due and not self._due:  # once: it stays due until all have agreed and saved
            self.ask(Flag.SAVE)
        self._due = due
        self.tick()
        self._hand_on()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """See whether all ranks have the same number of batches: else their ticks would part."""
        if not _in_fit(trainer):
            return
        assert self._ballot is not None
        batches = int(min(sum(trainer.num_val_batches), 2**31 - 1))
        most, least = self._ballot.vote([batches, -batches]).read()
        self._in_validation = most == -least

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        """A validation batch is a tick."""
        if _in_fit(trainer) and self._in_validation:
            self.tick()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A checkpoint agreed on in validation is taken at its end."""
        self._hand_on()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave no vote behind: all ranks have begun the same ones."""
        if self._vote is not None:
            self._vote.read()
            self._vote = None

    def tick(self) -> None:
        """Count; at every `every`-th, read the last vote and begin the next."""
        self._ticks += 1
        if self._alone:
            self._hold(self._sent())
        elif self._ticks % self.every == 0:
            assert self._ballot is not None
            if self._vote is not None:
                self._hold(self._vote.read())
            self._vote = self._ballot.vote(self._sent())

    def _hand_on(self) -> None:
        if self.take(Flag.SAVE):
            for saver in self._savers:
                saver.request()

    def _sent(self) -> list[int]:
        # one exchange: a signal before it is in this vote, one after it in the next
        asked, self._asked = self._asked, [0] * len(Flag)
        return asked

    def _hold(self, agreed: list[int]) -> None:
        self._agreed = [max(pair) for pair in zip(self._agreed, agreed, strict=True)]
        if agreed[Flag.STOP]:
            self._agreed[Flag.SAVE] = max(1, self._agreed[Flag.SAVE])


def _in_fit(trainer: Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking
