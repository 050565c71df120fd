from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import torch
from rich.console import Console

from lightning_rad.evaluation.table import record, table, write
from tests.evaluation.test_assessment import _assess, _splits


def test_the_record_is_plain_json_with_null_for_what_is_not_defined(tmp_path: Path) -> None:
    assessment = _assess(*_splits(), torch.eye(6)[:, :2])
    body = record(assessment)
    write(tmp_path / "deep" / "er" / "name", body)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    text = (tmp_path / "deep" / "er" / "name.json").read_text()
    again = json.loads(text, parse_constant=refuse)
    assert again == body
    assert again["images"] == {"fit": 100, "score": 100}
    assert again["findings"][1]["linear_auroc"]["value"] is None
    assert again["findings"][1]["fit_positives"] == 0
    assert assessment.random is not None
    for name, reading in (("", assessment.pretrained), ("random_", assessment.random)):
        estimate = reading.metrics["linear_ap"].finding(0)
        assert again["findings"][0][f"{name}linear_ap"]["value"] == estimate.value
        assert again["findings"][0][f"{name}linear_ap"]["low"] == estimate.low
    gain = again["findings"][0]["gain_linear_ap"]["value"]
    theirs = again["findings"][0]["random_linear_ap"]["value"]
    assert gain == again["findings"][0]["linear_ap"]["value"] - theirs
    assert again["findings"][0]["linear_auroc"].keys() == {"value", "low", "high", "dropped"}


def test_the_csv_holds_the_numbers_of_the_record(tmp_path: Path) -> None:
    body = record(_assess(*_splits(), torch.eye(6)))
    write(tmp_path / "name", body)
    lines = list(csv.DictReader((tmp_path / "name.csv").read_text().splitlines()))
    assert len(lines) == 5
    for line, finding in zip(lines, [*body["findings"], body["macro"]], strict=True):
        for name in ("knn_auroc", "linear_ap", "random_linear_auroc", "gain_linear_auroc"):
            for part, column in (("value", name), ("high", f"{name}_high")):
                number = float(line[column]) if line[column] else None
                assert number == finding[name][part]


def test_the_table_shows_value_and_interval_and_the_reason_where_there_is_none() -> None:
    assessment = _assess(*_splits(), torch.eye(6))
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table(assessment, "a title"))
    text = capture.get()
    estimate = assessment.pretrained.linear.auroc.finding(0)
    assert not math.isnan(estimate.low)
    assert f"{estimate.value:.3f} ({estimate.low:.3f}, {estimate.high:.3f})" in text
    for word in (
        "a title",
        "one class to fit",
        "no label",
        "macro of 1",
        "+0.000 (+0.000, +0.000)",
    ):
        assert word in text
    bare = _assess(*_splits())
    with console.capture() as capture:
        console.print(table(bare, "a title"))
    assert "random" not in capture.get()
