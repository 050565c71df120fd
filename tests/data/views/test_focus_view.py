"""A view that looks where readers looked: what it keeps, covers and darkens (sheet, 5.6)."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.data.views.focus_crop import FocusCrop
from lightning_rad.data.views.focus_cutout import FocusCutout
from lightning_rad.data.views.focus_drop import FocusDrop
from lightning_rad.data.views.focus_view import FocusView
from lightning_rad.data.views.mirror import mirrored
from lightning_rad.data.views.params import BLANK, CROP_EXHAUSTED, CUTOUT_EXHAUSTED
from lightning_rad.data.views.placement import map_seen, seen_at
from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.gaze import Saliency, heat_map, packed
from lightning_rad.randomness import hash64, uniforms
from lightning_rad.training.observers.focus import FocusRate
from tests.data.evidence import SETTINGS, batches_of, data_of, edited
from tests.data.reports import images_of, source_of
from tests.data.views.looking import (
    SALIENCY,
    SIZE,
    assert_same,
    drawn,
    has,
    looks,
    magnification,
    pictures,
)
from tests.data.views.rendering import on_cpu


def test_focus_a_a_crop_that_is_not_exhausted_keeps_nine_tenths_of_the_saliency():
    """Measured on the map as the view shows it, and on the map drawn as a picture and rendered."""
    view = FocusView(96, saliency=SALIENCY, crop=FocusCrop(rotation=30.0, flip=0.5))
    maps = looks()
    params = drawn(view, maps)
    exhausted = has(params, CROP_EXHAUSTED)
    assert 0.05 < exhausted.mean() < 0.95
    assert not has(params, BLANK).any()
    shown = np.array([map_seen(m, params, row, 96).sum() for row, m in enumerate(maps)])
    area = magnification(params) * 48 * 48 / np.prod(SIZE)
    shares = shown * area / [m.sum() for m in maps]
    assert shares[~exhausted].min() > 0.9 - 0.01
    assert shares[exhausted].min() < 0.88
    painted = pictures(maps)
    views = on_cpu(painted, params).sum((1, 2)) * magnification(params)
    assert (views / [p.sum() for p in painted])[~exhausted].min() > 0.9 - 0.02


@pytest.mark.parametrize("mass", [0.03, 0.1])
def test_focus_b_a_cut_out_covers_no_more_than_its_share_of_the_saliency(mass):
    """Of what the view shows: maps drawn as pictures, rendered with holes and without."""
    view = FocusView(
        96,
        saliency=SALIENCY,
        crop=FocusCrop(rotation=30.0, flip=0.5),
        cutout=FocusCutout(probability=1.0, mass=mass, redraws=4),
    )
    maps = looks()
    params = drawn(view, maps)
    exhausted = has(params, CUTOUT_EXHAUSTED)
    assert 0 < exhausted.mean() < 0.9
    painted = pictures(maps)
    whole = on_cpu(painted, replace(params, holes=params.holes[:, :0])).sum((1, 2))
    left = on_cpu(painted, params).sum((1, 2))
    covered = 1 - left / whole
    assert covered[~exhausted].max() <= mass + 0.01
    assert covered[exhausted].max() > mass + 0.05
    sides = params.holes[:, 0, 2:] - params.holes[:, 0, :2]
    assert sides.min() >= round(96 * 48 / 224)


@pytest.mark.parametrize("size", [(150, 190), (300, 180), (64, 64)])
def test_focus_c_image_and_saliency_stay_registered_after_mirror_turn_and_crop(size):
    """Bright dots of the image under dots of the map: less than a pixel of the view apart."""
    side, fine = 60, 480
    view = FocusView(80, saliency=SALIENCY, crop=FocusCrop(rotation=40.0, flip=0.5))
    rng = np.random.default_rng(1)
    cells = rng.integers(20, 40, (30, 2))
    maps, images = [], []
    for row, column in cells:
        map_SS = np.zeros((side, side), np.float32)
        map_SS[row, column] = 1.0
        maps.append(map_SS)
        y, x = (np.mgrid[: size[0], : size[1]] + 0.5) / np.array(size)[:, None, None]
        dot = (abs(y - (row + 0.5) / side) < 1 / side) & (abs(x - (column + 0.5) / side) < 1 / side)
        images.append(np.where(dot, 255, 0).astype(np.uint8))
    params = drawn(view, maps, size)
    params = mirrored(params, np.arange(30) % 2 == 0)
    measured = 0
    for row, (view_hw, map_SS) in enumerate(zip(on_cpu(images, params), maps, strict=True)):
        ys, xs = np.mgrid[:80, :80] + 0.5
        seen = map_seen(map_SS, params, row, fine)
        us, vs = (np.mgrid[:fine, :fine] + 0.5) * 80 / fine
        if min(view_hw.sum(), seen.sum()) == 0:
            continue
        dot = np.array([(view_hw * xs).sum(), (view_hw * ys).sum()]) / view_hw.sum()
        look = np.array([(seen * vs).sum(), (seen * us).sum()]) / seen.sum()
        if dot.min() < 8 or dot.max() > 72:
            continue  # cut by the border, its centroid is no landmark
        assert np.abs(dot - look).max() < 1.0
        point = (cells[row, ::-1] + 0.5) / side * np.array(size[::-1])
        assert np.abs(seen_at(point[None], params, row)[0] - look).max() < 1.0
        measured += 1
    assert measured > 15


class Learns(LightningModule):
    """One number, and what was logged beside it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.rows = []
        self.told = []

    def training_step(self, batch, batch_idx):
        self.rows.append(batch.unit.tolist())
        return self.weight * batch.views.mean()

    def validation_step(self, batch, batch_idx, dataloader_idx=0):
        pass

    def log_dict(self, told, **_):
        self.told.append({name: float(value) for name, value in told.items()})

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_focus_d_under_uniform_saliency_no_zoom_above_1_054_passes_and_the_exhaustion_rate_is_told(
    tiny_shards, tmp_path
):
    """Each step's rate is the share of draws with such a zoom: counted here from the numbers."""
    flat = packed(np.ones((16, 16)))
    shards = edited(
        tiny_shards,
        tmp_path / "flat",
        entry=lambda _, said: said | {"saliency": flat},
        fields=(*load_manifest(tiny_shards).fields, "saliency"),
    )
    crop = FocusCrop(rotation=0.0, zoom=(1.0, 1.2), redraws=20)
    view = FocusView(16, saliency=Saliency("predicted"), crop=crop)
    data = RadiographData(str(shards), **(SETTINGS | {"views": [view, view]}))
    module = Learns()
    trainer = Trainer(
        accelerator="cpu",
        max_steps=6,
        log_every_n_steps=2,
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[FocusRate()],
    )
    trainer.fit(module, datamodule=data)
    assert len(module.rows) == 6
    assert len(module.told) == 3
    zooms = []
    for units in module.rows:  # within the first data epoch
        for number in (0, 1):
            seed, epochs = int(hash64("focus crop", 0)), np.zeros(len(units), int)
            zooms.append(1.0 + 0.2 * uniforms(seed, epochs, np.array(units), number, 2)[:, 1])
    over = np.concatenate(zooms).reshape(3, -1) > 0.9**-0.5
    assert 0.5 < over.mean() < 0.95
    assert data.focus["drawn"] == over.size
    assert data.focus["crop_exhausted"] == over.sum()
    for told, share in zip(module.told, over.mean(1), strict=True):
        assert told["data/focus_crop_exhausted"] == pytest.approx(share)
        assert told["data/focus_cutout_exhausted"] == 0
        assert told["data/focus_blank"] == 0


@pytest.mark.parametrize("blank", [None, np.zeros((16, 16)), np.full((16, 16), np.nan)])
def test_focus_e_a_blank_map_falls_back_to_a_random_crop(blank):
    view = FocusView(
        64,
        crop=FocusCrop(rotation=0.0, zoom=(1.0, 1.1), fallback_zoom=(1.5, 2.0)),
        cutout=FocusCutout(probability=1.0),
        drop=FocusDrop(probability=1.0),
    )
    params = drawn(view, [blank] * 40)
    assert (params.exhausted == BLANK).all()
    zoom = np.sqrt(np.prod(SIZE) / (64 * 64 * magnification(params)))
    assert 1.5 * 0.99 < zoom.min() < zoom.max() < 2.0 * 1.01
    assert (params.shade == 255).all()
    assert (params.holes[:, 0, 2:] > params.holes[:, 0, :2]).all()
    plain = view.draw(params.sizes, seed=3, epochs=np.zeros(40, int), units=np.arange(40), view=0)
    assert_same(params, plain)


def test_focus_e_fixations_that_are_all_outside_are_no_map():
    outside = heat_map([(1.04, 0.5, 1.0), (0.5, -0.2, 1.0)], SIZE, side=32, spread=0.03)
    assert has(drawn(FocusView(32), [outside]), BLANK).all()


def test_focus_e_a_damaged_gaze_member_falls_back_and_the_image_stays(tiny_shards, tmp_path):
    """Of one study; all its rows are there, their views drawn as of a picture nobody looked at."""
    shards = edited(tiny_shards, tmp_path / "torn", members={(0, "gaze"): b'{"00": [[0.'})
    views = [FocusView(16, saliency=Saliency("recorded", side=16))] * 2
    data = data_of(shards, views=views)
    images = images_of(source_of(shards), 0)
    met = 0
    for batch in batches_of(data, len(data.train_dataloader())):
        of_it = np.isin(batch.image.numpy(), images)
        np.testing.assert_array_equal(batch.focus.numpy() & BLANK > 0, of_it)
        met += of_it.sum()
    assert met > 0
