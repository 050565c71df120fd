"""Bad samples are counted, named once, replaced alike everywhere, and too many end a run."""

import logging
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

from lightning_rad.data.reader import Reader, TooManyBadSamplesError
from lightning_rad.data.source import BadSampleError, ShardSource
from lightning_rad.manifest import IMAGE, STUDY, Index

GREYS = [20 * i for i in range(1, 11)]


def jpeg(grey: int) -> bytes:
    data: bytes = simplejpeg.encode_jpeg(
        np.full((16, 12, 1), grey, np.uint8), quality=95, colorspace="GRAY"
    )
    return data


def source_of(folder: Path, members: list[bytes], suffix: bytes = b"jpg") -> ShardSource:
    """A file of concatenated members, each one study of one image with the record '{}'."""
    images, studies, offset = [], [], 0
    record = b'{"images": []}'
    with (folder / "train-000000.tar").open("wb") as file:
        for number, data in enumerate(members):
            file.write(data + record)
            end = offset + len(data)
            images.append((number, 0, offset, len(data), suffix))
            studies.append((f"key{number}".encode(), number, end, len(record), 0, 0, 0, 0))
            offset = end + len(record)
    return ShardSource(
        Index(
            (folder / "train-000000.tar",),
            np.array(studies, STUDY),
            np.array(images, IMAGE),
            np.zeros(len(members), np.int32),
        )
    )


def grey_of(reader: Reader, image: int) -> tuple[int, int]:
    pixels, used = reader.pixels_or_neighbour(image)
    return round(float(pixels.mean()) / 20), used


def test_images_are_numbered_through_all_sources(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    a = source_of(tmp_path / "a", [jpeg(g) for g in GREYS[:3]])
    b = source_of(tmp_path / "b", [jpeg(g) for g in GREYS[3:]])
    reader = Reader([a, b])
    assert [grey_of(reader, i) for i in range(10)] == [(i + 1, i) for i in range(10)]


@pytest.mark.parametrize("damage", [b"", b"\xff\xd8\xff", b"not an image", None])
def test_a_bad_sample_gives_way_to_the_next_one(
    tmp_path: Path, damage: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    members = [jpeg(g) for g in GREYS]
    members[4] = members[4][: len(members[4]) // 2] if damage is None else damage
    reader = Reader([source_of(tmp_path, members)])
    with caplog.at_level(logging.WARNING):
        assert grey_of(reader, 4) == (6, 5)
        assert grey_of(reader, 4) == (6, 5)
    assert (reader.bad, reader.reads) == (2, 4)
    (message,) = [r.getMessage() for r in caplog.records]
    assert "train-000000.tar" in message
    assert "key4" in message


def test_the_last_image_wraps_to_the_first(tmp_path: Path) -> None:
    members = [jpeg(g) for g in GREYS]
    members[9] = b"broken"
    assert grey_of(Reader([source_of(tmp_path, members)]), 9) == (1, 0)


def test_too_many_bad_samples_end_the_run(tmp_path: Path) -> None:
    members = [jpeg(g) for g in GREYS]
    members[0] = b"broken"
    reader = Reader([source_of(tmp_path, members)], max_bad_fraction=0.003)
    for _ in range(3):
        reader.pixels_or_neighbour(0)
    with pytest.raises(TooManyBadSamplesError, match=r"max_bad_fraction=0\.003 .*key0"):
        reader.pixels_or_neighbour(0)


def test_nothing_readable_is_said_so(tmp_path: Path) -> None:
    reader = Reader([source_of(tmp_path, [b"broken"] * 5)], max_bad_fraction=1.0)
    with pytest.raises(TooManyBadSamplesError, match="in a row"):
        reader.pixels_or_neighbour(0)


def test_a_truncated_shard_names_shard_key_and_offset(tmp_path: Path) -> None:
    source = source_of(tmp_path, [jpeg(g) for g in GREYS])
    file = tmp_path / "train-000000.tar"
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(BadSampleError, match=r"train-000000\.tar, key key9: .* of .* bytes"):
        source.image(9)
    with pytest.raises(BadSampleError, match="key9"):
        source.record(9)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    source = source_of(tmp_path, [jpeg(20)])
    (tmp_path / "train-000000.tar").unlink()
    with pytest.raises(BadSampleError, match=r"train-000000\.tar.*No such file"):
        source.image(0)


def test_only_json_objects_pass_as_records(tmp_path: Path) -> None:
    source = source_of(tmp_path, [jpeg(20)])
    file = tmp_path / "train-000000.tar"
    file.write_bytes(file.read_bytes().replace(b'{"images": []}', b"[1, 2, 3, 4] ".ljust(14)))
    with pytest.raises(BadSampleError, match="not an object"):
        source.record(0)


def test_few_files_stay_open(tmp_path: Path) -> None:
    import os

    folders = [tmp_path / str(i) for i in range(20)]
    for folder in folders:
        folder.mkdir()
    sources = [source_of(folder, [jpeg(40)]) for folder in folders]
    index = Index(
        tuple(s.index.files[0] for s in sources),
        np.concatenate([s.index.studies for s in sources]),
        np.array([(i, 0, 0, len(jpeg(40)), b"jpg") for i in range(20)], IMAGE),
        np.arange(20, dtype=np.int32),
    )
    source = ShardSource(index, open_files=3)
    before = len(os.listdir("/proc/self/fd"))
    for image in [*range(20), *range(20)]:
        source.image(image)
    assert len(os.listdir("/proc/self/fd")) - before <= 3
