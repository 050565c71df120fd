"""The benchmark of training steps goes through every row on a CPU, on tiny networks."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu import steps
from benchmarks.gpu.step_cases import Case, cases

TINY = ["--device", "cpu", "--tiny"]
ELSEWHERE = {"32-true, tf32", "32-true", "CUDA graphs", "channels_last, CUDA graphs"}
"""Rows whose switches need CUDA, which `Speed` says."""


def rows(folder: Path) -> list[dict[str, str]]:
    (file,) = folder.glob("steps_*.json")
    (table,) = json.loads(file.read_text())["tables"]
    return table["rows"]  # type: ignore[no-any-return]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_row_is_measured_or_says_that_it_needs_cuda(tmp_path: Path) -> None:
    steps.main([str(tmp_path), *TINY])
    found = rows(tmp_path)
    assert len(found) == len(list(cases()))
    for row in found:
        if row["switch"] in ELSEWHERE:
            assert "needs CUDA" in row["ms a step"], row
        else:
            assert float(row["ms a step"]) > 0, row
            assert float(row["images/s"]) > 0, row
    (text,) = (file.read_text() for file in tmp_path.glob("steps_*.md"))
    assert "fused AdamW, compile" in text


@pytest.mark.filterwarnings("ignore")
def test_no_row_is_begun_when_the_time_is_spent(tmp_path: Path) -> None:
    steps.main([str(tmp_path), *TINY, "--seconds", "0"])
    assert {row["ms a step"] for row in rows(tmp_path)} == {"no time left"}


def test_a_batch_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def fit(case: Case, asked: Any, units: int, size: int) -> tuple[list[float], float]:
        tried.append(units)
        if units > 64:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [0.5], 1.0

    monkeypatch.setattr(steps, "_fit", fit)
    assert steps.measure(next(cases()), Namespace(tiny=True), 256) == (64, [0.5], 1.0)
    assert tried == [256, 128, 64]


def test_the_rate_and_its_share_of_the_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 units a 0.5 s step are 400 images/s; 1 TFLOP a unit is 200 TFLOP/s of an H100's 989."""
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H100 80GB HBM3")
    case = next(cases())
    shown, kept = steps.row_of(case, 100, [0.5, 0.4, 0.9], 3.0, 1e12, "cuda")
    assert shown["images/s"] == "400"
    assert kept["mfu"] == pytest.approx(200 / 989)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card of the future")
    assert steps.row_of(case, 100, [0.5], 3.0, 1e12, "cuda")[0]["MFU"] == ""


def test_the_count_of_operations_is_that_of_the_network() -> None:
    """Backward multiplies twice what forward does, but for the first layer's input."""
    one = steps.flops_a_unit(next(cases()), True, "cpu")
    assert one == steps.flops_a_unit(next(cases()), True, "cpu") > 1e6
