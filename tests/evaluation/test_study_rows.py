from __future__ import annotations

import torch
from torch import Tensor

from lightning_rad.collectives import rank
from lightning_rad.evaluation.study_rows import StudyCollector, StudyRows
from lightning_rad.schema import Reports, StudyBatch, ViewBatch
from tests.gloo import run_on_ranks

CPU = torch.device("cpu")


def _length(unit: int) -> int:
    return 3 + unit % 5


def _tokens(units: list[int]) -> Tensor:
    """As wide as the longest report of the batch."""
    width = max((_length(u) for u in units), default=0)
    rows = [[u * 10 + t if t < _length(u) else -1 for t in range(width)] for u in units]
    return torch.tensor(rows, dtype=torch.int64).view(len(units), width)


def _add(
    collector: StudyCollector,
    units: list[int],
    *,
    writes: bool,
    generates: bool,
    findings: int = 2,
) -> None:
    """Rows that are functions of their study."""
    unit = torch.tensor(units, dtype=torch.int64)
    report = Reports(unit + 7, unit < 0, {"caption": _tokens(units)})
    views = ViewBatch(torch.empty(1, len(unit), 1, 1, 1), unit, unit // 2, unit[None], report)
    outputs = {
        "image": torch.sin(unit[:, None] * torch.arange(1.0, 4.0)),
        "text": torch.cos(unit[:, None] * torch.arange(1.0, 4.0)),
        "hash": unit + 7,
        "unit": unit,
        "patient": unit // 2,
        "labels": (unit[:, None] % torch.tensor([2, 3][:findings]) == 0).float(),
    }
    if writes:
        outputs |= {"nll": unit * 0.5, "tokens": unit % 5 + 2}
    if writes and generates:
        outputs["generated"] = unit[:, None] + torch.arange(9)
    collector.add(outputs, StudyBatch(views, outputs["labels"]))


def _collect(batches: list[list[int]], writes: bool = True, first_only: bool = False) -> StudyRows:
    collector = StudyCollector()
    for number, units in enumerate(batches):
        _add(collector, units, writes=writes, generates=number == 0 or not first_only)
    rows = collector.gather(CPU)
    assert rows is not None
    return rows


def _assert_equal(a: StudyRows, b: StudyRows) -> None:
    for name in StudyRows.__slots__:
        mine, other = getattr(a, name), getattr(b, name)
        assert (mine is None) == (other is None), name
        assert mine is None or torch.equal(mine, other), name


def test_studies_come_once_and_sorted_whatever_the_batches_were() -> None:
    plain = _collect([list(range(12))])
    mixed = _collect([[3, 1, 11, 0], [7, 7, 2], [10, 9, 8, 3, 0], [4, 5, 6]])
    _assert_equal(plain, mixed)
    assert mixed.unit.tolist() == list(range(12))
    assert mixed.true is not None
    assert torch.equal(mixed.true, _tokens(list(range(12))))


def _ranks(shares: list[list[list[int]]], writes: bool) -> StudyRows:
    return _collect(shares[rank()], writes)


def test_ranks_with_unequal_shares_and_widths_or_none_hold_the_rows_of_one_process() -> None:
    for writes in (True, False):
        expected = _collect([list(range(9))], writes)
        assert (expected.nll is None, expected.generated is None) == (not writes, not writes)
        for shares in (
            [[[5, 1], [0]], [[2, 3, 4], [7, 6], [8, 8, 8]]],  # widths 4 and 7
            [[], [[4, 3, 2, 1, 0], [8, 7, 6, 5]]],
            [[[4, 3, 2, 1, 0], [8, 7, 6, 5]], []],
        ):
            for rows in run_on_ranks(_ranks, 2, shares, writes):
                _assert_equal(rows, expected)


def test_what_was_generated_for_some_is_padding_for_the_others() -> None:
    rows = _collect([[4, 2], [1, 3], [0]], first_only=True)
    assert rows.generated is not None
    assert rows.unit[(rows.generated >= 0).any(1)].tolist() == [2, 4]
    assert rows.generated[[0, 1, 3]].eq(-1).all()
    assert torch.equal(rows.generated[4], 4 + torch.arange(9))


def _unlabelled() -> tuple[int, int]:
    collector = StudyCollector()
    for units in ([1, 0], [2]) if rank() == 0 else ():
        _add(collector, units, writes=True, generates=True, findings=0)
    rows = collector.gather(CPU)
    assert rows is not None
    assert rows.unit.tolist() == [0, 1, 2]
    return tuple(rows.labels.shape)  # type: ignore[return-value]


def test_studies_without_labels_have_rows_too() -> None:
    assert run_on_ranks(_unlabelled, 2) == [(3, 0)] * 2


def _nothing() -> bool:
    return StudyCollector().gather(CPU) is None


def test_no_studies_on_any_rank_are_no_rows() -> None:
    assert _nothing()
    assert run_on_ranks(_nothing, 2) == [True, True]
