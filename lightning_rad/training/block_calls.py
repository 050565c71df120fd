"""How an encoder's repeated blocks are called: plainly, recomputed in backward, or compiled.

Each block gets a `forward` of its own and nothing else: no wrapper, so the keys of the state dict
stay, and hooks (those of sharding among them) run around it as around the plain one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any, Final

import torch
import torch._dynamo.config
import torch._functorch.config
from torch import nn
from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from lightning_rad.collectives import rank

log = logging.getLogger(__name__)

Call = Callable[..., Any]
"""Takes a block and what its forward takes, gives what its forward gives."""

COMPILER: Final = "inductor"
FAILURES: Final = (TorchDynamoException, FailOnRecompileLimitHit)
"""What torch.compile raises of itself, before a block has done anything."""

FORMS: Final = 4
"""Graphs a block may need: student and twin, each for a whole part of a batch and a last one."""


def plain(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The forward of the block's class."""
    return type(block).forward(block, *args, **kwargs)


def recomputed(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The same, of which only the arguments are kept: backward computes the rest once more.

    With the generators and autocast as they were; batch norms count the batch once.
    """
    if not torch.is_grad_enabled():
        return plain(block, *args, **kwargs)
    again = partial(checkpoint, plain, block, *args, use_reentrant=False, **kwargs)
    if torch.compiler.is_compiling():  # a compiled graph repeats no write to a buffer
        return again()
    return again(context_fn=lambda: (nullcontext(), _statistics_left_alone(block)))


@contextmanager
def _statistics_left_alone(block: nn.Module) -> Iterator[None]:
    """What batch norms write while a block runs again is undone: they have counted the batch."""
    norms = [m for m in block.modules() if isinstance(m, _BatchNorm) and m.training]
    buffers = [buffer for norm in norms for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, was in zip(buffers, before, strict=True):
                buffer.copy_(was)


class Compiled:
    """Compiled forms of calls, in training only; the plain ones once the compiler has failed.

    One graph serves all blocks of one make, so that a transformer's is compiled once for the
    student and once for its twin. Shapes are fixed: another size is another graph. A block is
    compiled whole or not at all: what cannot be, for want of a C++ compiler, of triton or of an
    operator, is said once, with its cause, and every block is called as it was from then on.

    root: whose mode says whether this is training. mode: of torch.compile. blocks: how many may
    call, each with `FORMS` graphs.
    """

    def __init__(self, root: nn.Module, mode: str, blocks: int) -> None:
        self.failed = False
        self._root, self._mode = root, mode
        dynamo, aot = torch._dynamo.config, torch._functorch.config
        limit = FORMS * blocks
        total = max(dynamo.accumulated_recompile_limit, 2 * limit)
        self._settings = ExitStack()
        limits: dict[str, Any] = {"recompile_limit": limit, "accumulated_recompile_limit": total}
        self._settings.enter_context(dynamo.patch(limits))
        # or a backward pass that cannot be compiled is found when it is too late to go back
        self._settings.enter_context(aot.patch(force_non_lazy_backward_lowering=True))

    def end(self) -> None:
        """Give the compiler its settings back."""
        self._settings.close()

    def form(self, call: Call) -> Call:
        """The call that compiles at its first use."""
        mode = None if self._mode == "default" else self._mode
        compiled = torch.compile(call, mode=mode, backend=COMPILER, dynamic=False, fullgraph=True)

        def run(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self.failed or not self._root.training:
                return call(block, *args, **kwargs)
            try:
                return compiled(block, *args, **kwargs)
            except FAILURES as error:
                self._give_up(error)
            return call(block, *args, **kwargs)

        return run

    def _give_up(self, error: BaseException) -> None:
        self.failed = True
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        log.warning(
            "speed.compile: rank %d cannot compile its blocks and goes on without, with the same "
            "result: %s: %s",
            rank(),
            type(error).__name__,
            " ".join(lines[:2])[:400] or "no reason given",
        )


def set_calls(blocks: Iterable[nn.Module], call: Call) -> None:
    """From now on the blocks' forward is this call."""
    for block in blocks:
        block.forward = partial(call, block)


def reset_calls(blocks: Iterable[nn.Module]) -> None:
    """The blocks' forward is that of their class again."""
    for block in blocks:
        block.__dict__.pop("forward", None)
