"""What is told of a batch's rows finds the same files and draws the same views again."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_rad.data.decode import decode
from lightning_rad.data.source import ShardSource
from lightning_rad.data.views.render_cpu import render_cpu
from lightning_rad.manifest import load_index, load_manifest
from tests.data.test_datamodule import VIEWS, data_of, set_up


def test_every_image_is_found_by_shard_and_key(tiny_shards: Path, other_shards: Path) -> None:
    """Also where two sets are mixed, and in a later data epoch."""
    data = set_up(data_of({str(tiny_shards): 0.5, str(other_shards): 0.5}))
    stream = data._stream
    assert stream is not None
    positions = (80, 84)
    batch = next(stream.batches(positions))
    told = data.origin(positions, batch.unit.tolist(), batch.image.tolist())
    assert told["positions"] == [80, 84]
    assert {row["images"][0]["manifest"] for row in told["rows"]} == {
        str(tiny_shards),
        str(other_shards),
    }
    for row in told["rows"]:
        for shown in row["images"]:
            manifest = load_manifest(shown["manifest"])
            [shard] = [s for s in manifest.shards if s.file == shown["shard"]]
            index = load_index(manifest, [shard])
            [image] = [
                number
                for number, record in enumerate(index.images)
                if index.studies[record["study"]]["key"].decode() == shown["key"]
                and record["ordinal"] == shown["ordinal"]
            ]
            pixels = decode(*ShardSource(index).image(image))
            assert np.array_equal(pixels, stream.reader.pixels(shown["image"]))


def test_seed_epoch_and_unit_draw_the_same_views(tiny_shards: Path) -> None:
    data = set_up(data_of(str(tiny_shards)))
    stream = data._stream
    assert stream is not None
    positions = ((len(stream.parts[0].units) - 1) // 4 * 4,)  # across the seam of data epochs
    batch = next(stream.batches(positions))
    told = data.origin(positions, batch.unit.tolist(), batch.image.tolist())
    assert {row["epoch"] for row in told["rows"]} == {0, 1}
    for number, row in enumerate(told["rows"]):
        image = stream.reader.pixels(row["images"][1]["image"])
        drawn = VIEWS[1].draw(
            np.array([image.shape]),
            seed=told["seed"],
            epochs=np.array([row["epoch"]]),
            units=np.array([row["unit"]]),
            view=1,
        )
        slot = np.zeros((16, 16), np.uint8)
        render_cpu(image, drawn, 0, slot)
        assert np.array_equal(slot, batch.pixels[1, number, 0].numpy())
