"""Whether /dev/shm holds what NCCL puts there; containers are given 64 MiB unless told."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import CUDAAccelerator

log = logging.getLogger(__name__)

NEEDED = 1 << 30
"""Bytes: what NCCL's troubleshooting page tells containers to be given (`--shm-size=1g`)."""


def warn_where_small(trainer: Trainer, folder: Path = Path("/dev/shm")) -> None:
    """Warn once a machine, before NCCL starts, where its ranks would run out of shared memory."""
    ranks = trainer.num_devices if isinstance(trainer.accelerator, CUDAAccelerator) else 0
    if trainer.local_rank == 0 and (message := shortage(ranks, folder)):
        log.warning(message)


def shortage(gpu_ranks: int, folder: Path = Path("/dev/shm"), needed: int = NEEDED) -> str | None:
    """What is wrong with shared memory, with the remedy; None where nothing is.

    Only GPUs of one machine need it: NCCL's buffers between them lie there. Decoding threads share
    the memory of their process, ranks on the CPU talk over sockets.

    Args:
        gpu_ranks: Ranks with a GPU on this machine.
        folder: Where shared memory is mounted.
        needed: Bytes that should be free.
    """
    if gpu_ranks < 2:
        return None
    if not folder.is_dir():
        return f"there is no {folder}, which NCCL needs between {gpu_ranks} GPUs of one machine"
    room = os.statvfs(folder)
    free = room.f_bavail * room.f_frsize
    if free >= needed:
        return None
    return (
        f"{folder} has {free >> 20} MiB free and NCCL between {gpu_ranks} GPUs of one machine may "
        f"need {needed >> 20}: start the container with --shm-size=1g or --ipc=host"
    )
