"""Runs whose shards are named by URL, through the command line."""

import shutil
from pathlib import Path

import pytest
import torch

from tests.command import lightning_rad, refused
from tests.storage.faulty import FaultyServer, always, at, every
from tests.test_cli import saved, small

__all__ = ["small"]  # a fixture


def test_a_fit_by_url_is_that_from_the_disk(
    small: list[str], tiny_shards: Path, tmp_path: Path
) -> None:
    lightning_rad("fit", *small, "--trainer.max_steps", "3")
    server = FaultyServer(tiny_shards)
    server.fault = every(9, "503")
    with server.running() as url:
        remote = ("--data.manifest", url, "--data.remote.cache", str(tmp_path / "cache"))
        run = ("--run", str(tmp_path / "remote"), "--trainer.max_steps", "3")
        lightning_rad("fit", *small, *remote, *run)
        lightning_rad("validate", *small, *remote, *run[:2], "--ckpt_path", "last")
    assert server.faults["503"]
    ours, theirs = (saved(tmp_path / name)["state_dict"] for name in ("remote", "run"))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_set_that_moved_to_a_store_is_resumed(
    small: list[str], tiny_shards: Path, tmp_path: Path
) -> None:
    lightning_rad("fit", *small, "--trainer.max_steps", "2")
    with FaultyServer(tiny_shards).running() as url:
        remote = ("--data.manifest", url, "--data.remote.cache", str(tmp_path / "cache"))
        lightning_rad("fit", *small, *remote, "--trainer.max_steps", "4", "--ckpt_path", "last")
    assert saved(tmp_path / "run")["RadiographData"]["positions"] == [4 * 16]


@pytest.mark.parametrize(
    ("fault", "told"),
    [(at("404", 0), "manifest.json: not there"), (always("403"), "manifest.json: access denied")],
)
def test_what_a_store_refuses_is_one_line(
    small: list[str],
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    fault: object,
    told: str,
) -> None:
    server = FaultyServer(tiny_shards)
    server.fault = fault  # type: ignore[assignment]
    with server.running() as url:
        said = refused(capsys, "fit", *small, "--data.manifest", url)
    assert f"{url}/{told}" in said


def test_a_shard_that_is_gone_ends_a_fit_in_one_line(
    small: list[str], tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "served"
    shutil.copytree(tiny_shards, copy)
    for shard in copy.glob("train-*.tar"):
        shard.unlink()
    with FaultyServer(copy).running() as url:
        remote = ("--data.manifest", url, "--data.remote.cache", str(tmp_path / "cache"))
        said = refused(capsys, "fit", *small, *remote, "--trainer.max_steps", "3")
    assert ".tar: not there (404)" in said
