"""A folder of checkpoints: which there are, which is the newest whole one, which may go."""

from __future__ import annotations

import logging
import re
import shutil
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from lightning_rad.checkpoints.contents import CONTENTS, flush_folder, verify
from lightning_rad.collectives import broadcast_object, rank

log = logging.getLogger(__name__)

PART = ".part"
"""Ends the name of a folder that is being written or deleted: never read, cleared by a writer."""

REPLACED = ".replaced"
"""Ends the name of a checkpoint while another of its step takes its place; counts if none has."""

SUPERSEDED = ".superseded"
"""Ends the name of a checkpoint of later steps than the run has gone back to."""

_STEP = re.compile(rf"step-(\d{{8,}})(?:{re.escape(REPLACED)})?")


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay.

    newest: how many of the last ones; one of them may turn out damaged. every: steps whose
    multiples are kept for ever; None: none are.
    """

    newest: int = 2
    every: int | None = None

    def __post_init__(self) -> None:
        if self.newest < 1:
            raise ValueError(f"checkpoint.keep must be at least 1, got {self.newest}")
        if self.every is not None and self.every < 1:
            raise ValueError(
                f"checkpoint.keep_every_n_steps must be at least 1 or null, got {self.every}"
            )


def named(step: int) -> str:
    """The name of the checkpoint of a step."""
    return f"step-{step:08d}"


def checkpoints(folder: str | PathLike[str]) -> dict[int, Path]:
    """The checkpoints in a folder by step, rising; damaged ones are among them."""
    folder = Path(folder)
    found = sorted(folder.iterdir(), reverse=True) if folder.is_dir() else ()
    matched = ((_STEP.fullmatch(path.name), path) for path in found)
    by_step = {int(m[1]): path for m, path in matched if m}  # its own name last
    return dict(sorted(by_step.items()))


def newest(folder: str | PathLike[str]) -> Path | None:
    """The newest whole checkpoint in a folder; None if there is no checkpoint at all.

    Newer ones that are damaged are passed over, with a warning each. Raises ValueError if all are.
    """
    folder = Path(folder)
    there = checkpoints(folder)
    for path in reversed(there.values()):
        try:
            verify(path)
        except ValueError as error:
            log.warning("checkpoint %s passed over: %s", path.name, error)
        else:
            return path
    if there:
        names = ", ".join(path.name for path in there.values())
        raise ValueError(
            f"{folder}: none of its checkpoints is whole ({names}): "
            "move the folder away to begin anew, or choose another --run"
        )
    return None


def resolve(path: str | PathLike[str]) -> Path:
    """The checkpoint that a path means: itself, or the newest whole one in it; verified.

    Raises ValueError, saying what is expected, if there is none.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path}: there is no such checkpoint")
    if not path.is_dir():
        raise ValueError(
            f"{path}: a file; to go on takes a checkpoint folder such as step-00000500, or a "
            "folder of them; --init_from takes weights from a file"
        )
    if is_checkpoint(path):
        verify(path)
        return path
    found = newest(path)
    if found is None:
        raise ValueError(f"{path}: neither a checkpoint nor a folder of checkpoints")
    return found


def resolve_on_all_ranks(path: str | PathLike[str]) -> Path:
    """`resolve` by rank 0, its answer or its error on every rank; all of them have to call it."""
    seen: Path | ValueError | None = None
    if rank() == 0:
        try:
            seen = resolve(path)
        except ValueError as error:
            seen = error
    seen = broadcast_object(seen)
    if isinstance(seen, ValueError):
        raise seen
    assert seen is not None
    return seen


def is_checkpoint(path: str | PathLike[str]) -> bool:
    """Whether a path names a folder that is or was meant to be one checkpoint."""
    path = Path(path)
    return path.is_dir() and ((path / CONTENTS).exists() or bool(_STEP.fullmatch(path.name)))


def prune(newer: Path, keep: Keep) -> None:
    """After `newer` was committed: delete what need not stay, set aside what is of later steps.

    Later steps are there when a run went back to an earlier checkpoint; left in place they would be
    taken for the newest.
    """
    there = checkpoints(newer.parent)
    step = next((step for step, path in there.items() if path == newer), None)
    if step is None:  # a name of the user's own
        return
    for later in [there.pop(other) for other in list(there) if other > step]:
        aside = later.with_name(later.name + SUPERSEDED)
        delete(aside)
        later.rename(aside)
        log.warning("%s is of later steps than this run: set aside as %s", later, aside.name)
    for old in list(there)[: -keep.newest]:
        if keep.every is None or old % keep.every:
            delete(there[old])


def delete(path: Path) -> None:
    """Delete a checkpoint; broken off half-way it is no checkpoint any more."""
    if path.exists():
        away = path.with_name(path.name + PART)
        shutil.rmtree(away, ignore_errors=True)
        shutil.rmtree(path.rename(away))


def put_in_place(part: Path, folder: Path) -> None:
    """Give a finished checkpoint its name. One of the same step, trained again, goes after that."""
    old = folder.with_name(folder.name + REPLACED)
    if folder.exists():
        delete(old)
        folder.rename(old)
    part.rename(folder)
    flush_folder(folder.parent)
    delete(old)


def clear_parts(folder: Path) -> None:
    """Delete what writers that were killed have left."""
    for part in folder.glob(f"*{PART}"):
        shutil.rmtree(part, ignore_errors=True)
    for old in folder.glob(f"*{REPLACED}"):
        if old.with_suffix("").exists():
            shutil.rmtree(old, ignore_errors=True)
