"""One checkpoint to disk: whole under its name, or not there."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.distributed.checkpoint.default_planner import DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
)
from torch.distributed.checkpoint.planner import (
    SavePlan,
    TensorWriteData,
    WriteItem,
    WriteItemType,
)

from lightning_rad.checkpoints.contents import Contents, flush_folder, measure, write_through
from lightning_rad.checkpoints.folders import PART, clear_parts, put_in_place
from lightning_rad.checkpoints.metadata import METADATA
from lightning_rad.checkpoints.read import PLAIN
from lightning_rad.checkpoints.staging import Piece
from lightning_rad.collectives import Group, gather_objects, rank, scatter_objects

T = TypeVar("T")
R = TypeVar("R")


class CheckpointError(OSError):
    """A checkpoint could not be written; the message says where and why."""


@dataclass(frozen=True)
class Job:
    """A checkpoint that is to be written.

    folder: its final name. plain: the tree without tensors. pieces: the tensors in host memory, or
    this rank's shards of them. about: what `contents.json` is to say beside step and files.
    """

    folder: Path
    step: int
    plain: dict[str, Any]
    pieces: dict[str, Piece]
    about: dict[str, Any]

    @property
    def part(self) -> Path:
        """Where it is made."""
        return self.folder.with_name(self.folder.name + PART)


class _Planner(DefaultSavePlanner):
    """Plans pieces that lie in host memory; no object is ever written as bytes."""

    def __init__(self, pieces: dict[str, Piece]) -> None:
        # whole buffers differ between ranks: a network is rank 0's, as under DDP
        super().__init__(
            flatten_state_dict=False, flatten_sharded_tensors=False, dedup_save_to_lowest_rank=True
        )
        self._pieces = pieces

    def create_local_plan(self) -> SavePlan:
        items = [
            _item(key, piece)
            for key, piece in self._pieces.items()
            if piece.values.numel() or not piece.size.numel()
        ]
        self.plan = SavePlan(items)
        return self.plan

    def resolve_data(self, write_item: WriteItem) -> Tensor | io.BytesIO:
        return self._pieces[write_item.index.fqn].values


class _Files(FileSystemWriter):
    def storage_meta(self) -> StorageMeta:
        """Nothing of this machine."""
        return StorageMeta()


def write(job: Job, *, together: bool = False, group: Group = None) -> None:
    """Write, flush, give it its name. Raises CheckpointError, and leaves nothing behind.

    together: all ranks call this, each with its shards, and talk over `group`; all raise if one
    fails. Otherwise the caller writes all by itself. A process that is killed meanwhile leaves a
    `.part`, which no reader looks at.
    """
    exchange = _Exchange(together, group)
    # nothing to copy ahead: pieces lie in host memory, and a copy would use the first GPU's stream
    files = _Files(job.part, overwrite=False, per_thread_copy_ahead=0)
    planner = _Planner(job.pieces)
    planner.set_up_planner({}, is_coordinator=exchange.first)
    files.set_up_storage_writer(exchange.first)
    metadata: Any = None

    def begin() -> None:
        if exchange.first:
            clear_parts(job.folder.parent)
            job.part.mkdir(parents=True)

    def plan_all(plans: list[SavePlan]) -> list[SavePlan]:
        nonlocal metadata
        global_plans, metadata = planner.create_global_plan(plans)
        return files.prepare_global_plan(global_plans)

    def write_mine() -> tuple[list[Any], dict[str, tuple[int, str]]]:
        results = files.write_data(planner.finish_plan(mine), planner).value()
        names = {result.storage_data.relative_path for result in results}
        return results, {name: measure(job.part / name) for name in sorted(names)}

    def commit(done: list[tuple[list[Any], dict[str, tuple[int, str]]]]) -> list[None]:
        files.finish(metadata, [results for results, _ in done])
        written = {name: found for _, mine in done for name, found in mine.items()}
        _commit(job, written)
        return [None] * len(done)

    try:
        exchange(begin, _for_all)
        mine = exchange(lambda: files.prepare_local_plan(planner.create_local_plan()), plan_all)
        exchange(write_mine, commit)
    except BaseException:
        if exchange.first:
            shutil.rmtree(job.part, ignore_errors=True)
        raise


def _commit(job: Job, written: dict[str, tuple[int, str]]) -> None:
    plain = io.BytesIO()
    strides = {key: piece.stride for key, piece in job.pieces.items()}
    torch.save({"tree": job.plain, "strides": strides}, plain)
    write_through(job.part / PLAIN, plain.getvalue())
    for name in (PLAIN, METADATA):
        written[name] = measure(job.part / name)
    Contents(job.step, written, job.about).write(job.part)
    flush_folder(job.part)
    put_in_place(job.part, job.folder)


def _item(key: str, piece: Piece) -> WriteItem:
    chunk = ChunkStorageMetadata(offsets=piece.offsets, sizes=piece.values.size())
    properties = TensorProperties(dtype=piece.values.dtype)
    return WriteItem(
        index=MetadataIndex(key, piece.offsets),
        type=WriteItemType.SHARD,
        tensor_data=TensorWriteData(chunk=chunk, properties=properties, size=piece.size),
    )


def _for_all(done: list[R]) -> list[R]:
    return done


class _Exchange:
    """A step that every rank takes and rank 0 answers; all leave with an answer or an error."""

    def __init__(self, together: bool, group: Group) -> None:
        self._together, self._group = together, group
        self.first = not together or rank() == 0

    def __call__(self, local: Callable[[], R], answer: Callable[[list[R]], list[T]]) -> T:
        mine = self._attempt(local)
        all_of_them = gather_objects(mine, self._group) if self._together else [mine]
        answers = None if all_of_them is None else self._answered(all_of_them, answer)
        if self._together:
            received = scatter_objects(answers, self._group)
        else:
            assert answers is not None
            [received] = answers
        if isinstance(received, CheckpointError):
            raise received
        return received

    def _answered(
        self, given: list[R | CheckpointError], answer: Callable[[list[R]], list[T]]
    ) -> list[T | CheckpointError]:
        good = [value for value in given if not isinstance(value, CheckpointError)]
        if len(good) < len(given):
            return [next(e for e in given if isinstance(e, CheckpointError))] * len(given)
        answers = self._attempt(lambda: answer(good))
        return [answers] * len(given) if isinstance(answers, CheckpointError) else [*answers]

    def _attempt(self, local: Callable[[], R]) -> R | CheckpointError:
        try:
            return local()
        except Exception as error:  # whatever it was, the other ranks have to hear of it
            where = f"rank {rank()}: " if self._together else ""
            cause = _cause(error)
            return CheckpointError(f"{where}{type(cause).__name__}: {cause}")


def _cause(error: BaseException) -> BaseException:
    """The disk's own word, where torch.save ends in another error because of it."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError):
            return at
        at = at.__cause__ or at.__context__
    return error
