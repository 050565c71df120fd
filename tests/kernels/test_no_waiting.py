"""The host never waits for a value of the device: it could not, the tensors here have none.

What is launched under a fake mode is what a CUDA graph would capture.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from triton.runtime.interpreter import InterpretedFunction
from triton.runtime.jit import JITFunction

from lightning_rad.kernels.rows.fused_triton import tiled
from tests.kernels.launches import launch_everything


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of kernels; nothing runs."""
    names: list[str] = []
    for kind in (InterpretedFunction, JITFunction):
        monkeypatch.setattr(kind, "run", lambda self, *_, **__: names.append(self.fn.__name__))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)  # fake tensors cannot
    return names


def test_the_triton_forms_launch_without_looking_at_a_value(launched: list[str]) -> None:
    with FakeTensorMode(), torch.device("cuda"):
        launch_everything()
    wanted = {"_prepare", "_finish", "_sums", "_gradient", "_weights", "_pairs", "_pass", "_join"}
    assert wanted <= set(launched)


def test_a_look_at_a_value_would_be_seen(launched: list[str]) -> None:
    with FakeTensorMode(), torch.device("cuda"):
        rows: Any = tiled(torch.zeros(4, 8))
        with pytest.raises(DataDependentOutputException):
            rows.factor_P.sum().item()
    assert launched == ["_prepare"]
