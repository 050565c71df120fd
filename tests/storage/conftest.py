"""A bucket of small files, and servers of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from lightning_rad.storage.door import door
from tests.storage.faulty import FaultyServer


@pytest.fixture
def faulty(tmp_path: Path) -> Iterator[tuple[FaultyServer, str]]:
    """A server of an empty folder, and its URL."""
    folder = tmp_path / "served"
    folder.mkdir()
    server = FaultyServer(folder)
    with server.running() as url:
        yield server, url


@pytest.fixture(params=["http", "s3"])
def either(
    request: pytest.FixtureRequest,
    faulty: tuple[FaultyServer, str],
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[FaultyServer, str]:
    """The same, also as a bucket that is asked for by the client of S3."""
    server, url = faulty
    if request.param == "http":
        return server, url
    server.bucket = "bucket/"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    return server, "s3://bucket"


@pytest.fixture(autouse=True)
def doors_close() -> Iterator[None]:
    """Ports are used again by servers of other tests: no connection outlives its test."""
    yield
    door.cache_clear()
