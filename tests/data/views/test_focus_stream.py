"""Focus views in a stream: the same whoever computes them, of the images that are shown."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_rad.data.settings import Evaluation, Loading, Shuffle
from lightning_rad.data.views.focus_crop import FocusCrop
from lightning_rad.data.views.focus_cutout import FocusCutout
from lightning_rad.data.views.focus_drop import FocusDrop
from lightning_rad.data.views.focus_view import FocusView
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.params import BLANK
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.data.views.random_zoom import RandomZoom, ZoomCutout
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.modalities.gaze import Saliency
from tests.data.evidence import batches_of, bits, data_of, edited, pixels_of
from tests.data.reports import source_of

SIZE = 24


def view(**changes: Any) -> FocusView:
    parts = {
        "saliency": Saliency("recorded", side=16),
        "crop": FocusCrop(rotation=15.0),
        "cutout": FocusCutout(probability=0.5),
        "drop": FocusDrop(probability=0.5),
        "intensity": Intensity(),
        "noise": Noise(),
    }
    return FocusView(SIZE, **(parts | changes))


def data(shards: Path, views: list[Any], **changes: Any) -> Any:
    settings = {
        "views": views,
        "evaluation": Evaluation(WholeImage(SIZE), batch=8),
        "global_batch": 16,
        "shuffle": Shuffle(groups=4, window=16, flip=0.3),
    }
    return data_of(shards, **(settings | changes))


@pytest.mark.parametrize("unit", ["image", "study"])
def test_a_device_renders_the_very_views_that_threads_render(tiny_shards: Path, unit: Any) -> None:
    made = []
    for render, threads in (("cpu", 0), ("cpu", 3), ("device", 0), ("device", 3)):
        loading = Loading(threads=threads, render=render)
        batches = batches_of(data(tiny_shards, [view()] * 2, unit=unit, loading=loading), 4)
        made.append([row for batch in batches for row in bits(batch)])
        focus = torch.stack([batch.focus for batch in batches])
        made[-1].append(focus.tolist())
        assert not (focus & BLANK).any()
    assert all(other == made[0] for other in made[1:])


def test_what_a_study_shows_is_drawn_by_the_map_of_the_image_shown(
    tiny_shards: Path, tmp_path: Path
) -> None:
    """Also where a neighbour stands in for an image that cannot be read."""
    source = source_of(tiny_shards)
    gone = {(study, "gaze"): b"" for study in range(0, len(source.index.studies), 2)}
    torn = range(0, len(source.index.images), 9)
    shards = edited(tiny_shards, tmp_path / "out", members=gone, torn=torn)
    changed = source_of(shards)
    loaded = data(shards, [view()] * 2, loading=Loading(threads=0, max_bad_fraction=0.5))
    for batch in batches_of(loaded, len(loaded.train_dataloader())):
        studies = changed.index.images["study"][batch.image.numpy()]
        np.testing.assert_array_equal(
            batch.focus.numpy() & BLANK > 0, changed.index.studies["gaze_size"][studies] == 0
        )
        assert not np.isin(batch.image.numpy(), list(torn)).any()


def test_each_view_has_the_maps_it_asks_for(tiny_shards: Path) -> None:
    """Beside another, and beside one that looks at nothing."""
    recorded, others = view(), view(saliency=Saliency("shuffled", side=16))
    plain = RandomView(SIZE, crop=Crop())
    [first] = batches_of(data(tiny_shards, [recorded, others, plain]), 1)
    [second] = batches_of(data(tiny_shards, [recorded, recorded, plain]), 1)
    one, other = pixels_of(first), pixels_of(second)
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])
    assert torch.equal(one[2], other[2])
    assert not first.focus[2].any()


def test_views_that_look_at_nothing_have_nothing_to_tell(tiny_shards: Path) -> None:
    control = RandomZoom(SIZE, cutout=ZoomCutout())
    [batch] = batches_of(data(tiny_shards, [control] * 2), 1)
    assert batch.focus is None


def test_shards_without_what_a_view_asks_for_are_refused_by_name(
    tiny_shards: Path,
) -> None:
    with pytest.raises(ValueError, match=r"no predicted saliency.*data\.views\[1\]"):
        data(tiny_shards, [RandomView(SIZE, crop=Crop()), view(saliency=Saliency("predicted"))])
