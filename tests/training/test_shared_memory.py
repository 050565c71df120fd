"""Too little /dev/shm is named before NCCL starts, and only where NCCL would use it."""

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.accelerators import CPUAccelerator, CUDAAccelerator

from lightning_rad.training.shared_memory import shortage, warn_where_small

DOCKERS = 64 << 20


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def give(free: int) -> Path:
        told = SimpleNamespace(f_bavail=free // 4096, f_frsize=4096)
        monkeypatch.setattr(os, "statvfs", lambda _: told)
        return tmp_path

    return give


def test_dockers_default_is_named_with_its_remedy(room: Any) -> None:
    message = shortage(8, room(DOCKERS))
    assert message is not None
    for part in ("64 MiB", "8 GPUs", "--shm-size", "--ipc=host"):
        assert part in message


def test_a_gibibyte_is_enough(room: Any) -> None:
    assert shortage(8, room(1 << 30)) is None
    assert shortage(8, room((1 << 30) - 4096)) is not None


@pytest.mark.parametrize("gpu_ranks", [0, 1])
def test_no_second_gpu_needs_none(room: Any, gpu_ranks: int) -> None:
    assert shortage(gpu_ranks, room(0)) is None


def test_a_missing_mount_is_named(tmp_path: Path) -> None:
    assert "there is no" in (shortage(2, tmp_path / "shm") or "")


def fake(accelerator: type, devices: int, local_rank: int) -> Trainer:
    kind = accelerator.__new__(accelerator)
    return cast(
        Trainer, SimpleNamespace(accelerator=kind, num_devices=devices, local_rank=local_rank)
    )


@pytest.mark.parametrize(
    ("accelerator", "devices", "local_rank", "warnings"),
    [
        (CUDAAccelerator, 8, 0, 1),
        (CUDAAccelerator, 8, 3, 0),
        (CUDAAccelerator, 1, 0, 0),
        (CPUAccelerator, 8, 0, 0),
    ],
)
def test_one_warning_a_machine_and_only_for_gpus(
    room: Any,
    caplog: pytest.LogCaptureFixture,
    accelerator: type,
    devices: int,
    local_rank: int,
    warnings: int,
) -> None:
    folder = room(DOCKERS)
    with caplog.at_level(logging.WARNING, "lightning_rad"):
        warn_where_small(fake(accelerator, devices, local_rank), folder)
    assert len(caplog.records) == warnings
