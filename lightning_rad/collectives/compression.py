"""Gradients in fewer bits on their way between ranks."""

from __future__ import annotations

from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import bf16_compress_hook
from torch.nn.parallel import DistributedDataParallel


def reduce_in_bfloat16(model: DistributedDataParallel) -> None:
    """From now on DDP sums gradients in bfloat16, over all ranks; half the bytes of float32.

    Each rank's gradient is rounded, then divided by the number of ranks, and so are the sums: 8
    bits of mantissa. To be called once, before the first step. On any backend that sums bfloat16,
    Gloo among them.
    """
    model.register_comm_hook(None, bf16_compress_hook)
