"""Streams of sets by URL: the batches of a local set, whatever the network does to them."""

import logging
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from lightning_rad.data.asked import Asked, Share
from lightning_rad.data.batch import StreamBatch
from lightning_rad.data.corpus import report_texts
from lightning_rad.data.planning import open_sets, plan_stream
from lightning_rad.data.settings import Loading, Shuffle
from lightning_rad.data.source import ShardSource
from lightning_rad.data.stream import Stream
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.manifest import ManifestError, load_index, load_manifest
from lightning_rad.storage.door import door
from lightning_rad.storage.settings import Remote, StorageError
from tests.storage.faulty import FaultyServer, always
from tests.storage.servers import nginx, s3

ALONE = Share(0, 1)
VIEWS = [RandomView(16, crop=Crop())]
SHUFFLE = Shuffle(seed=3, groups=2, window=8)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("lightning_rad.storage.patience._FIRST_PAUSE", 0.01)
    monkeypatch.setattr("lightning_rad.storage.patience._LONGEST_PAUSE", 0.1)
    yield
    door.cache_clear()


@pytest.fixture
def faulty(tiny_shards: Path) -> Iterator[tuple[FaultyServer, str]]:
    server = FaultyServer(tiny_shards)
    with server.running() as url:
        yield server, url


def stream_of(
    name: str, remote: Remote, *, share: Share = ALONE, threads: int = 2, ahead: int = 2
) -> Stream:
    sets = open_sets({name: 1.0}, remote, share, SHUFFLE)
    planned = plan_stream(
        sets,
        {name: 1.0},
        VIEWS,
        share,
        unit="image",
        global_batch=8,
        shuffle=SHUFFLE,
        loading=Loading(threads=threads, ahead=ahead, max_bad_fraction=0.0),
        asked=Asked(),
    )
    return planned.stream


def batches(stream: Stream, count: int) -> list[StreamBatch]:
    return list(islice(stream.batches((0,)), count))


def equal(ours: list[StreamBatch], theirs: list[StreamBatch]) -> bool:
    return all(
        bool((a.unit == b.unit).all() and (a.image == b.image).all())
        and bool((a.pixels == b.pixels).all())  # type: ignore[union-attr]
        for a, b in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("server", [nginx, s3])
@pytest.mark.parametrize("gib", [1.0, 0.0])
def test_two_epochs_from_a_server_are_those_of_the_disk(
    tiny_shards: Path, tmp_path: Path, server: type, gib: float
) -> None:
    bucket = tmp_path / "bucket"
    shutil.copytree(tiny_shards, bucket / "set")
    local = stream_of(str(tiny_shards), Remote())
    count = 2 * len(local) + 1
    with server(bucket, tmp_path) as url:
        remote = Remote(cache=str(tmp_path / "cache"), gib=gib)
        for rank in range(2):
            share = Share(rank, 2)
            ours = batches(stream_of(f"{url}/set", remote, share=share), count)
            assert equal(ours, batches(stream_of(str(tiny_shards), Remote(), share=share), count))


def test_resets_bursts_stalls_and_wrong_bytes_lose_and_repeat_nothing(
    tiny_shards: Path, tmp_path: Path, faulty: tuple[FaultyServer, str]
) -> None:
    server, url = faulty

    def fault(number: int) -> str | None:
        if number % 25 in range(10, 15):  # a burst
            return "503"
        if number in (17, 33, 58):
            return "stall"
        return {3: "reset", 6: "cut", 8: "wrong"}.get(number % 25)

    server.fault, server.latency = fault, 0.01
    # room for one shard: each is fetched again and again
    size = max(s.bytes for s in load_manifest(tiny_shards).shards)
    settings = Remote(cache=str(tmp_path / "cache"), gib=1.5 * size / 2**30, timeout=0.5)
    stream = stream_of(url, settings)
    for source in stream.reader.sources:
        source._files._most = 1  # type: ignore[union-attr]
    local = stream_of(str(tiny_shards), Remote())
    count = 3 * len(local)
    assert equal(batches(stream, count), batches(local, count))
    assert set(server.faults) >= {"503", "stall", "wrong", "reset", "cut"}
    assert stream.reader.bad == 0


def test_no_latency_is_seen_once_shards_are_expected(
    tiny_shards: Path, tmp_path: Path, faulty: tuple[FaultyServer, str]
) -> None:
    server, url = faulty
    server.latency = 0.1
    stream = stream_of(url, Remote(cache=str(tmp_path / "cache")))
    waits = []
    for batch in range(2 * len(stream)):
        begun = time.monotonic()
        if batch == 0:
            coming = stream.batches((0,))
        next(coming)
        waits.append(time.monotonic() - begun)
        time.sleep(0.04)  # a step of training
    assert waits[0] > 0.1
    assert sum(wait > 0.08 for wait in waits[4:]) <= 1, waits


def test_a_store_that_is_gone_ends_a_run_and_is_no_bad_sample(
    tiny_shards: Path, tmp_path: Path, faulty: tuple[FaultyServer, str]
) -> None:
    server, url = faulty
    stream = stream_of(url, Remote(cache=str(tmp_path / "cache"), retries=1))
    server.fault = always("503")
    with pytest.raises(StorageError, match=rf"{url}/train-.*\.tar: the server answers 503"):
        batches(stream, 1)
    assert stream.reader.bad == 0


@pytest.mark.parametrize("name", ["manifest.json", "index"])
def test_a_manifest_or_index_that_is_missing_or_damaged_is_named(
    tiny_shards: Path, tmp_path: Path, name: str
) -> None:
    copy = tmp_path / "served"
    shutil.copytree(tiny_shards, copy)
    manifest = load_manifest(copy)
    name = manifest.shards[0].index if name == "index" else name
    server = FaultyServer(copy)
    settings = Remote(cache=str(tmp_path / "cache"))
    with server.running() as url:
        (copy / name).write_bytes(b"{}")
        with pytest.raises(ManifestError, match=rf"{url}/{name}: not "):
            load_index(load_manifest(url, settings), manifest.shards[:1])
        (copy / name).unlink()
        with pytest.raises(ManifestError, match=rf"{url}/{name}: not there"):
            load_index(load_manifest(url, settings), manifest.shards[:1])


def test_indexes_are_kept_and_asked_for_once(
    tmp_path: Path, faulty: tuple[FaultyServer, str]
) -> None:
    server, url = faulty
    settings = Remote(cache=str(tmp_path / "cache"))
    for _ in range(2):
        manifest = load_manifest(f"{url}/manifest.json", settings)
        load_index(manifest, manifest.shards)
    assert {server.asked[s.index] for s in manifest.shards} == {1}
    assert server.asked["manifest.json"] == 2


def test_commands_that_work_on_folders_say_so(faulty: tuple[FaultyServer, str]) -> None:
    with pytest.raises(ManifestError, match=rf"{faulty[1]}: this works on local folders"):
        load_manifest(Path(faulty[1]))


def test_reports_are_read_by_url(
    tiny_shards: Path,
    faulty: tuple[FaultyServer, str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("LIGHTNING_RAD_CACHE", str(tmp_path / "cache"))
    ours = [text for _, text in report_texts([Path(faulty[1])])]
    assert ours == [text for _, text in report_texts([tiny_shards])]


def test_too_small_a_cache_is_said_once(
    tmp_path: Path, faulty: tuple[FaultyServer, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        batches(stream_of(faulty[1], Remote(cache=str(tmp_path / "cache"), gib=1e-5)), 10)
    assert len([r for r in caplog.records if "data.remote.gib" in r.message]) == 1


def test_views_of_raw_images_outlive_the_open_file(tiny_shards: Path) -> None:
    manifest = load_manifest(tiny_shards)
    index = load_index(manifest, manifest.shards)
    encoded = ShardSource(index)
    images = index.images.copy()
    images["suffix"] = b"pgm"  # handed out as they lie there
    source = ShardSource(replace(index, images=images), open_files=1)
    held = [source.image(n)[0] for n in range(len(images))]
    assert all(isinstance(data, memoryview) and data.readonly for data in held)
    assert [bytes(data) for data in held] == [encoded.image(n)[0] for n in range(len(images))]
