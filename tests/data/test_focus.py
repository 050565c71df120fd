"""Views that look where readers looked get the maps of the images they show, and are counted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rad.data.settings import Loading, Shuffle
from lightning_rad.data.views.focus_recipe import FocusRecipe
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.params import BLANK, CROP_EXHAUSTED, CUTOUT_EXHAUSTED, ViewParams
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.modalities.gaze import Saliency, heat_map
from tests.data.evidence import batches_of, data_of, edited, pixels_of
from tests.data.reports import source_of

SALIENCY = Saliency("recorded", side=16)
PLAIN = RandomView(16, crop=Crop())


class Watches(FocusRecipe):
    """Keeps the maps that it is given, and says that even units were exhausted."""

    def __init__(self, saliency: Saliency = SALIENCY) -> None:
        super().__init__(16, saliency=saliency)
        self.seen: dict[tuple[int, int, int], Any] = {}

    def draw_focused(
        self, sizes: Any, maps: Any, *, seed: int, epochs: Any, units: Any, view: int
    ) -> ViewParams:
        assert len(maps) == len(sizes)
        for epoch, unit, map_SS in zip(epochs.tolist(), units.tolist(), maps, strict=True):
            self.seen[epoch, unit, view] = map_SS
        params = PLAIN.draw(sizes, seed=seed, epochs=epochs, units=units, view=view)
        blank = np.array([map_SS is None for map_SS in maps])
        told = np.where(units % 2 == 0, CROP_EXHAUSTED, CUTOUT_EXHAUSTED * (units % 3 == 0))
        return replace(params, exhausted=(told + BLANK * blank).astype(np.uint8))


@pytest.mark.parametrize("render", ["cpu", "device"])
@pytest.mark.parametrize("threads", [0, 2])
def test_the_maps_are_of_the_images_shown_also_where_a_neighbour_stands_in(
    tiny_shards: Path, tmp_path: Path, render: Any, threads: int
) -> None:
    torn = (3, 10, 11)
    shards = edited(tiny_shards, tmp_path / "torn", torn=torn)
    source, view = source_of(tiny_shards), Watches()
    data = data_of(
        shards,
        views=[PLAIN, view],
        unit="study",
        global_batch=16,
        shuffle=Shuffle(groups=4, window=16, flip=0.5),
        loading=Loading(threads=threads, render=render),
    )
    stood_in, positions = set(), (0,)
    for batch in batches_of(data, 8):
        epochs = data._stream.rows(positions).epoch.tolist()
        positions = batch.after
        for epoch, unit, image in zip(
            epochs, batch.unit.tolist(), batch.image[1].tolist(), strict=True
        ):
            assert image not in torn
            stood_in |= {image} & {4, 12}
            own = heat_map(source.fixations(image), (32, 32), side=16, spread=0.03)
            np.testing.assert_array_equal(view.seen[epoch, unit, 1], own)
    assert stood_in == {4, 12}


@pytest.mark.parametrize("render", ["cpu", "device"])
def test_what_focus_views_had_to_make_do_with_is_counted(
    tiny_shards: Path, tmp_path: Path, render: Any
) -> None:
    shards = edited(tiny_shards, tmp_path / "some", members={(5, "gaze"): b"", (6, "gaze"): b"{"})
    data = data_of(
        shards,
        views=[Watches(), PLAIN, Watches(Saliency("recorded", side=8))],
        global_batch=16,
        loading=Loading(threads=2, render=render),
    )
    bare = np.isin(source_of(shards).index.images["study"], (5, 6))
    assert data.focus == {"drawn": 0, "crop_exhausted": 0, "cutout_exhausted": 0, "blank": 0}
    counts = np.zeros(3, np.int64)
    for batch in batches_of(data, 7):
        assert batch.focus.shape == (3, 16)
        assert batch.focus.dtype == torch.uint8
        assert not batch.focus[1].any()
        moved = batch.to(torch.device("cpu"))
        assert moved.focus is batch.focus
        data.on_after_batch_transfer(moved, 0)
        even = batch.unit.numpy() % 2 == 0
        third = ~even & (batch.unit.numpy() % 3 == 0)
        counts += 2 * np.array([even.sum(), third.sum(), bare[batch.image[0].numpy()].sum()])
    assert counts.min() > 0
    said = dict(zip(("crop_exhausted", "cutout_exhausted", "blank"), counts.tolist(), strict=True))
    assert data.focus == {"drawn": 7 * 2 * 16} | said


def test_without_focus_views_nothing_is_counted_and_no_gaze_is_read(
    tiny_shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("read")

    data = data_of(tiny_shards, views=[PLAIN, PLAIN])
    for name in ("gaze", "fixations", "entry", "record"):
        monkeypatch.setattr(type(data._stream.reader.sources[0]), name, refuse)
    for batch in batches_of(data, 2):
        assert batch.focus is None
        data.on_after_batch_transfer(batch, 0)
    assert data.focus["drawn"] == 0


def test_focus_views_do_not_change_which_units_come_or_what_other_views_show(
    tiny_shards: Path,
) -> None:
    focused, plain = (
        data_of(tiny_shards, views=[PLAIN, Watches()]),
        data_of(tiny_shards, views=[PLAIN, PLAIN]),
    )
    assert focused.state_dict() == plain.state_dict()
    for one, other in zip(batches_of(focused, 3), batches_of(plain, 3), strict=True):
        assert torch.equal(one.unit, other.unit)
        assert torch.equal(pixels_of(one), pixels_of(other))


def test_a_focus_view_of_sets_none_of_which_has_gaze_is_refused(
    tiny_shards: Path, other_shards: Path, tmp_path: Path
) -> None:
    without = edited(other_shards, tmp_path / "none", fields=("report",))
    said = r"data.manifest .*none has no gaze, which data.views\[1\] reads: its fields are \['rep"
    with pytest.raises(ValueError, match=said):
        data_of(without, views=[PLAIN, Watches()])
    with pytest.raises(ValueError, match=r"no predicted saliency, which data.views\[0\] reads"):
        data_of(tiny_shards, views=[Watches(Saliency("predicted")), PLAIN])
    data = data_of({str(without): 1.0, str(tiny_shards): 1.0}, views=[PLAIN, Watches()])
    assert batches_of(data, 1)[0].focus is not None
    data_of(without, stage="validate", views=[PLAIN, Watches()])
