"""The reports of a batch's rows: what is drawn for each, and the tensors they become."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_rad.modalities.reading import ReadReport
from lightning_rad.randomness import hash64
from lightning_rad.schema import PADDING, Reports

_STEP: Final = 8
"""Widths are multiples of it, so that there are few of them, up to the limit."""

Ints = npt.NDArray[np.integer[Any]]


def flips(seed: int, epoch_R: Ints, unit_R: Ints, share: float) -> npt.NDArray[np.bool_]:
    """Whether each unit is mirrored in its data epoch; true for a share of them."""
    bits_R = hash64("flip", seed, epoch_R, unit_R)
    return np.asarray((bits_R >> np.uint64(11)).astype(np.float64) * 2.0**-53 < share)


def drawn_sentence(seed: int, epoch_R: Ints, unit_R: Ints) -> npt.NDArray[np.uint64]:
    """What chooses the sentence that is read of each unit's report in its data epoch."""
    return hash64("sentence", seed, epoch_R, unit_R)


class ReportRows:
    """Collects the reports of R rows, put in from any thread, each row once.

    flipped_R: which rows are mirrored. limits: the most tokens of a row, by the name of the tokens.
    """

    def __init__(self, flipped_R: npt.NDArray[np.bool_], limits: Mapping[str, int]) -> None:
        self._flipped, self._limits = flipped_R, limits
        self._reports: list[ReadReport | None] = [None] * len(flipped_R)

    def put(self, row: int, report: ReadReport) -> None:
        """Keep the report of a row."""
        self._reports[row] = report

    def tensors(self, *, pin: bool = False) -> Reports:
        """All rows; each kind of tokens as wide as its longest row asks for, at most its limit."""
        reports = [report for report in self._reports if report is not None]
        assert len(reports) == len(self._flipped), "a row has no report"
        return Reports(
            hash=_pinned(np.array([report.hash for report in reports], np.int64), pin),
            flipped=_pinned(self._flipped, pin),
            tokens={
                name: _pinned(_padded([r.tokens[name] for r in reports], limit), pin)
                for name, limit in self._limits.items()
            },
        )


def _padded(rows: list[npt.NDArray[np.int64]], limit: int) -> npt.NDArray[np.int64]:
    longest = max(map(len, rows))
    table = np.full((len(rows), min(-(-longest // _STEP) * _STEP, limit)), PADDING, np.int64)
    for row, tokens in enumerate(rows):
        table[row, : len(tokens)] = tokens
    return table


def _pinned(array: npt.NDArray[Any], pin: bool) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.pin_memory() if pin else tensor
