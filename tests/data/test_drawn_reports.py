"""What is drawn for a study: mirrored or not, a sentence; the same on any ranks and threads."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Trainer

from lightning_rad.data.settings import Loading
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.modalities.reading import Reading
from lightning_rad.modalities.report import swap_sides, text_hash
from tests.data.reports import (
    SETTINGS,
    altered,
    batches_of,
    bits,
    data_of,
    images_of,
    reading_of,
    source_of,
    study_of,
)

SHUFFLE = SETTINGS["shuffle"]


@pytest.mark.parametrize("render", ["cpu", "device"])
def test_batches_do_not_depend_on_ranks_threads_or_interruptions(
    tiny_shards: Path, tmp_path: Path, render: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do the rows that were replaced, sentences drawn, and what is mirrored."""
    source = source_of(tiny_shards)
    shards = altered(
        tiny_shards,
        tmp_path / "bad",
        without=[2, 9],
        said={5: b"\xff", 20: b"FINDINGS: XXXX."},
        torn=images_of(source, 11),
    )
    reading = reading_of(tiny_shards, sentence=True)
    changes: Any = {"shuffle": replace(SHUFFLE, flip=0.5)}
    whole = data_of(shards, reading, **changes)
    expected = [bits(b) for b in batches_of(whole, 10)]
    assert len({r[-2] for rows in expected for r in rows}) > 20

    for ranks, threads in ((1, 3), (2, 0), (4, 2)):
        shares = []
        for rank in range(ranks):
            monkeypatch.setattr(Trainer, "world_size", ranks)
            monkeypatch.setattr(Trainer, "global_rank", rank)
            loading = Loading(threads=threads, render=render)
            data = data_of(shards, reading, loading=loading, **changes)
            data.load_state_dict(whole.state_dict() | {"positions": [32]})
            shares.append(batches_of(data, 6))
        got = [[row for share in shares for row in bits(share[step])] for step in range(6)]
        if render == "cpu":
            assert got == expected[4:]
        else:  # one grey level
            plain = [[(*r[:4], *r[5:]) for r in rows] for rows in expected[4:]]
            assert [[(*r[:4], *r[5:]) for r in rows] for rows in got] == plain


@pytest.mark.parametrize("render", ["cpu", "device"])
@pytest.mark.parametrize("views", [2, 3])
def test_a_study_is_mirrored_in_all_views_iff_its_words_of_side_are_swapped(
    tiny_shards: Path, reading: Reading, render: Any, views: int
) -> None:
    source = source_of(tiny_shards)
    changes: Any = {
        "views": [RandomView(16, crop=Crop())] * views,
        "loading": Loading(threads=2, render=render),
    }
    plain = batches_of(data_of(tiny_shards, reading, **changes), 14)
    half = batches_of(
        data_of(tiny_shards, reading, shuffle=replace(SHUFFLE, flip=0.5), **changes), 14
    )
    swapped = 0
    for a, b in zip(plain, half, strict=True):
        assert torch.equal(a.image, b.image)
        before, after = (
            x.pixels if isinstance(x.pixels, torch.Tensor) else x.pixels.render() for x in (a, b)
        )
        for row, flipped in enumerate(b.report.flipped.tolist()):
            expected = before[:, row].flip(-1) if flipped else before[:, row]
            assert torch.equal(after[:, row], expected)
            text = reading.text(source.report(study_of(source, int(b.image[0, row]))))
            assert int(b.report.hash[row]) == text_hash(swap_sides(text) if flipped else text)
            swapped += flipped and swap_sides(text) != text
    assert swapped > 20


def test_studies_are_mirrored_in_the_share_asked_for_anew_each_data_epoch(
    tiny_shards: Path, reading: Reading
) -> None:
    for share in (0.0, 0.25, 1.0):
        data = data_of(tiny_shards, reading, shuffle=replace(SHUFFLE, flip=share))
        flipped = torch.cat([b.report.flipped for b in batches_of(data, 56)]).float()
        assert abs(float(flipped.mean()) - share) < 4 * (share * (1 - share) / 448) ** 0.5 + 1e-9
    data = data_of(tiny_shards, reading, shuffle=replace(SHUFFLE, flip=0.5))
    drawn: dict[int, set[bool]] = {}
    for batch in batches_of(data, 56):
        for unit, flip in zip(batch.unit.tolist(), batch.report.flipped.tolist(), strict=True):
            drawn.setdefault(unit, set()).add(flip)
    assert sum(len(flips) == 2 for flips in drawn.values()) > 0.9 * len(drawn)


def test_views_are_mirrored_together_where_no_reports_are_read(tiny_shards: Path) -> None:
    plain = batches_of(data_of(tiny_shards, None), 7)
    half = batches_of(data_of(tiny_shards, None, shuffle=replace(SHUFFLE, flip=0.5)), 7)
    mirrored = 0
    for a, b in zip(plain, half, strict=True):
        assert b.report is None
        for row in range(8):
            mirrors = torch.equal(b.pixels[:, row], a.pixels[:, row].flip(-1))
            assert mirrors or torch.equal(b.pixels[:, row], a.pixels[:, row])
            mirrored += mirrors
    assert 14 < mirrored < 42


def test_one_sentence_is_drawn_anew_each_data_epoch(tiny_shards: Path) -> None:
    reading = reading_of(tiny_shards, sentence=True)
    seen: dict[int, set[int]] = {}
    for batch in batches_of(data_of(tiny_shards, reading), 28):
        for unit, said in zip(batch.unit.tolist(), batch.report.hash.tolist(), strict=True):
            seen.setdefault(unit, set()).add(said)
    assert sum(len(hashes) > 1 for hashes in seen.values()) > 0.8 * len(seen)
