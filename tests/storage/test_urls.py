"""Which names are URLs."""

from pathlib import Path

import pytest

from lightning_rad.storage.settings import Remote, StorageError
from lightning_rad.storage.urls import url_of


@pytest.mark.parametrize("name", ["shards", "/data/set", "a:b", "C:/x", "../s3/x", "s3", ""])
def test_paths_are_no_urls(name: str) -> None:
    assert url_of(name) is None


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("s3://bucket/set", "s3://bucket/set"),
        ("gs://bucket/set/", "gs://bucket/set"),
        ("HTTPS://host:8000/a/b", "https://host:8000/a/b"),
    ],
)
def test_a_url_is_kept_also_as_a_path_that_lost_a_slash(name: str, url: str) -> None:
    assert url_of(name) == url
    assert url_of(Path(name)) == url


@pytest.mark.parametrize("name", ["ftp://host/x", "file:///data/x", "hdfs://x/y"])
def test_other_schemes_are_refused_by_name(name: str) -> None:
    with pytest.raises(
        StorageError, match=r"accepted are folders, http://, https://, s3://, gs://"
    ):
        url_of(name)


def test_a_password_in_a_url_is_refused_and_not_repeated() -> None:
    with pytest.raises(StorageError) as told:
        url_of("https://user:secret@host/x")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("gib", -1.0), ("connections", 0), ("timeout", 0.0), ("retries", -1)],
)
def test_settings_out_of_range_are_refused_by_key(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"data\.remote\.{key} must be"):
        Remote(**{key: value})  # type: ignore[arg-type]


def test_the_cache_is_where_one_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTNING_RAD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert Remote().folder == Path("/xdg/lightning_rad/shards")
    monkeypatch.setenv("LIGHTNING_RAD_CACHE", "/fast")
    assert Remote().folder == Path("/fast")
    assert Remote(cache="/named").folder == Path("/named")
