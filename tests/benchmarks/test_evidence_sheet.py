"""On a contact sheet, what is known of a picture lies where it is in the picture."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from benchmarks import evidence_sheet
from benchmarks.evidence_sheet import LINE, SIDE, drawn
from benchmarks.runs import ROOT
from tests.data.evidence import CORNERS, box, boxed, rectangle

RECIPE = ROOT / "configs/view/two_view_focus_small.yaml"
GREEN, RED = (90, 240, 90), (255, 60, 60)


def made(monkeypatch: pytest.MonkeyPatch, out: Path, shards: Path, *more: str) -> np.ndarray:
    """[H, W, 3] of the sheet."""
    words = ["evidence_sheet", str(out), "--manifest", str(shards), "--rows", "2", *more]
    monkeypatch.setattr(sys, "argv", words)
    evidence_sheet.main()
    with Image.open(out) as sheet:
        return np.array(sheet)


def columns(sheet: np.ndarray) -> float:
    return sheet.shape[1] / (SIDE + 8)


def extent(of: np.ndarray) -> tuple[int, ...]:
    """Left, top, right, bottom of what is True."""
    rows, cols = np.nonzero(of)
    return cols.min(), rows.min(), cols.max() + 1, rows.max() + 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_box_frames_what_it_is_drawn_around_and_missing_columns_are_left_out(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = boxed(
        tiny_shards,
        tmp_path / "in",
        [box("no label", *CORNERS)],
        picture=rectangle,
        fields=["boxes"],
    )
    sheet = made(monkeypatch, tmp_path / "sheet.png", shards)
    assert columns(sheet) == 1
    tile = sheet[LINE + 4 : LINE + 4 + SIDE, 4 : 4 + SIDE]
    frame = extent((tile == GREEN).all(2))
    bright = extent((tile.min(2) > 128) | (tile == GREEN).all(2))
    seen = np.array(CORNERS) * SIDE / 300 + [0, 30 * SIDE / 300] * 2
    assert np.abs(np.array(frame) - seen).max() <= 2
    assert np.abs(np.array(frame) - bright).max() <= 2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_views_of_an_exhausted_search_are_framed_in_red_and_no_others(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = yaml.safe_load(RECIPE.read_text())
    first, second = (
        recipe["data"]["views"][0],
        yaml.safe_load(RECIPE.read_text())["data"]["views"][1],
    )
    first["init_args"]["crop"] |= {"zoom": [4.0, 4.0], "keep": 1.0, "redraws": 1}
    second["init_args"]["crop"] |= {"zoom": [1.0, 1.0], "keep": 0.0}
    for view in (first, second):
        view["init_args"] |= {"cutout": None, "drop": None}
    recipe["data"]["views"] = [first, second]
    (tmp_path / "view.yaml").write_text(yaml.safe_dump(recipe))
    more = ("--view", str(tmp_path / "view.yaml"))
    sheet = made(monkeypatch, tmp_path / "sheet.png", tiny_shards, *more)
    assert columns(sheet) == 4  # boxes, recorded gaze, two views
    corners = [tuple(sheet[LINE + 1, column * (SIDE + 8) + 1].tolist()) for column in range(4)]
    assert corners == [(0, 0, 0), (0, 0, 0), RED, (0, 0, 0)]


@pytest.mark.parametrize("shift", [0.0, 0.4, -0.4])
def test_a_patch_that_reads_off_its_middle_is_drawn_where_it_reads(shift: float) -> None:
    heat = torch.zeros(4, 4)
    heat[1, 2] = 1.0
    tile = np.array(drawn(torch.zeros(1, 1, 64, 64, dtype=torch.uint8), heat, shift=shift))
    warm = tile[..., 0].astype(float)
    at = [float((warm.sum(axis) * (np.arange(SIDE) + 0.5)).sum() / warm.sum()) for axis in (0, 1)]
    assert at == pytest.approx([SIDE / 4 * (2.5 + shift), SIDE / 4 * (1.5 + shift)], abs=1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_shown_is_refused_in_one_line(
    tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, bare = tmp_path / "sheet.png", tmp_path / "bare"
    with pytest.raises(SystemExit, match=r"nowhere.*no such manifest"):
        made(monkeypatch, out, tmp_path / "nowhere")
    with pytest.raises(SystemExit, match="no-run"):
        made(monkeypatch, out, tiny_shards, "--checkpoint", str(tmp_path / "no-run"))
    with pytest.raises(SystemExit, match="none of the images looked at has boxes or gaze"):
        made(monkeypatch, out, boxed(tiny_shards, bare, [], fields=["report"]))
    assert not out.exists()
