"""GPUs, driver and NCCL, from planted facts."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightning_rad.training.doctor.devices import Gpu, Gpus, find_gpus, gpus
from lightning_rad.training.doctor.finding import Finding, worst

H100 = Gpu("NVIDIA H100", 80 << 30, (9, 0))
V100 = Gpu("Tesla V100", 16 << 30, (7, 0))
CODES = ("sm_80", "sm_90")


def box(*seen: Gpu, driver: str | None = "580.65.06", cuda: str | None = "13.0") -> Gpus:
    return Gpus(seen, driver, cuda, CODES if seen else (), (2, 27, 3) if cuda else None)


def told(findings: list[Finding], level: str) -> str:
    return "; ".join(str(f) for f in findings if f.level == level)


def test_eight_alike_gpus_are_well() -> None:
    findings = gpus(box(*[H100] * 8), devices=8)
    assert worst(findings) == "ok"
    assert [f.what for f in findings] == ["driver", *(f"GPU {i}" for i in range(8)), "NCCL"]
    assert findings[1].value == "NVIDIA H100, 80 GiB, sm_90"
    assert findings[-1].value == "2.27.3"


@pytest.mark.parametrize(
    ("found", "says"),
    [
        (box(H100, driver="570.86.15"), "needs driver 580"),
        (box(H100, driver="515.1", cuda="12.8"), "needs driver 525"),
        (box(driver="580.65.06"), "torch sees no GPU"),
        (box(driver="580.65.06", cuda=None), "install torch with CUDA"),
        (box(V100), "torch has code for sm_80, sm_90 only"),
        (box(*[H100] * 4), "lower --devices"),
    ],
)
def test_what_would_fail_at_the_first_step_fails_here(found: Gpus, says: str) -> None:
    assert says in told(gpus(found, devices=8 if len(found.seen) == 4 else None), "failed")


def test_an_older_driver_of_the_release_family_is_enough() -> None:
    assert worst(gpus(box(H100, driver="535.104", cuda="12.8"), None)) == "ok"


def test_code_of_a_smaller_number_of_the_generation_is_enough() -> None:
    assert worst(gpus(box(Gpu("RTX 3090", 24 << 30, (8, 6))), None)) == "ok"


def test_no_gpu_and_gpus_of_several_kinds_are_warned_of() -> None:
    assert "CPU" in told(gpus(box(driver=None), None), "warning")
    assert worst(gpus(box(driver=None), None)) == "warning"
    a100 = Gpu("NVIDIA A100", 80 << 30, (8, 0))
    assert "slowest" in told(gpus(box(H100, a100), None), "warning")


def test_the_driver_is_read_from_proc(tmp_path: Path) -> None:
    folder = tmp_path / "driver/nvidia"
    folder.mkdir(parents=True)
    (folder / "version").write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    assert find_gpus(tmp_path).driver == "550.54.15"
    (folder / "version").write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build\n"
    )
    assert find_gpus(tmp_path).driver == "580.65.06"
    assert find_gpus(tmp_path / "nowhere").driver is None
