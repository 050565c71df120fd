"""What docs/numerics.md says of bfloat16 rows: ours is as near as rounding lets it be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from benchmarks import accuracy

TOO_STEEP = (0.02, 0.9)
"""The loss is 1e-13 here, which no sum of float32 tells from 0."""


def test_ours_is_within_twice_the_rounding_of_the_result_and_autocast_is_not() -> None:
    table = accuracy.measure(pairs=256, dim=128)
    for at in table.details:
        if (at["t"], at["cosine"]) == TOO_STEEP:
            continue
        error, off = at["gradient errors"], at["loss errors"]
        assert error["ours"] < 2 * error["rounding"] < 4e-3, at
        assert off["ours"] < 2e-6, at
        assert error["dense autocast"] > 1.2 * error["ours"], at
    aligned = [
        at["gradient errors"] for at in table.details if (at["t"], at["cosine"]) == (0.1, 0.9)
    ]
    assert all(error["dense autocast"] > 5 * error["ours"] for error in aligned)


def test_unit_rows_rounded_to_bfloat16_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted form normalises first and then rounds, as a kernel of unit rows would."""

    def planted(z_MD: Tensor, t: float) -> Tensor:
        unit = torch.nn.functional.normalize(z_MD.float(), dim=1)
        return accuracy.dense(unit.bfloat16().float(), t)

    monkeypatch.setattr(accuracy, "ours", planted)
    errors = [at["gradient errors"] for at in accuracy.measure(pairs=128).details]
    assert any(error["ours"] > 2 * error["rounding"] for error in errors[3:])
