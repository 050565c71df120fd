"""What a build folder already holds, so that a build can be killed, resumed, shared or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from lightning_rad.manifest import Manifest, Shard, load_manifest, write_atomically
from lightning_rad.sharding.indexing import ShardRecord
from lightning_rad.sharding.part import Part
from lightning_rad.sharding.plan import Job, Plan
from lightning_rad.sharding.room import room
from lightning_rad.storage import locks

_PATIENCE_S: Final = 600.0
"""How long a task waits for another one to begin: it looks at a folder and writes two files."""


class Ledger:
    """The state of one output folder; its notes lie in `.build/` and go when the build is done.

    part: of the task that builds only its share, at the same time as others.
    """

    def __init__(self, out: Path, part: Part | None = None) -> None:
        self.out = out
        self.notes = out / ".build"
        self.workshop = self.notes if part is None else self.notes / part.name
        self._part = part

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other build out of this folder, or every other build of this part.

        The system lets go if this process dies. Raises ValueError where the disk is full, and
        where a file stands in the way of the folder.
        """
        with room(self.out, self.workshop):
            try:
                self.workshop.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise ValueError(f"{self.out}: a file, or in one; give a folder") from None
            with self._locked(self.notes / "lock", shared=self._part is not None):
                if self._part is not None:
                    with self._locked(self.workshop / "lock", shared=False):
                        yield
                    return
                try:
                    yield
                finally:
                    if {p.name for p in self.notes.glob("*")} <= {"lock", "beginning"}:
                        shutil.rmtree(self.notes)

    @contextmanager
    def _locked(self, path: Path, *, shared: bool) -> Iterator[None]:
        with path.open("a+") as lock:  # NFS takes shared locks of what can be read
            if not locks.taken(lock.fileno(), shared=shared):
                whose = "build" if path.parent == self.notes else f"task of part {self._part}"
                raise ValueError(f"{self.out}: another {whose} is at work in this folder")
            yield

    def finished(self, plan: Plan) -> Manifest | None:
        """The manifest, if this very plan was carried out here; files may be lost since."""
        manifest = self.manifest()
        return manifest if manifest and manifest.details.get("plan") == plan.digest else None

    def manifest(self) -> Manifest | None:
        """The manifest that is there."""
        return load_manifest(self.out) if (self.out / "manifest.json").exists() else None

    def lost(self, manifest: Manifest) -> dict[str, Shard]:
        """Shards of a finished build without their index or their whole tar, by the job's name."""
        return {
            Path(shard.file).stem: shard
            for shard in manifest.shards
            if not (self.out / shard.index).exists()
            or not (self.out / shard.file).exists()
            or (self.out / shard.file).stat().st_size != shard.bytes
        }

    def begin(self, plan: Plan, *, overwrite: bool) -> None:
        """Claim the folder for a plan.

        Raises ValueError where it holds another build's shards, or recipes and no shards.
        """
        with locks.held(self.notes / "beginning", _PATIENCE_S):
            self._begin(plan, overwrite=overwrite)

    def _begin(self, plan: Plan, *, overwrite: bool) -> None:
        note = self.notes / "plan.json"
        mine = {"plan": plan.digest}
        if note.exists() and json.loads(note.read_text()) == mine:
            mine_alone = self.notes.rglob if self._part is None else self.workshop.glob
            for part in mine_alone("*.part"):
                part.unlink()
            return
        present = self._products()
        if self._part is not None and note.exists():
            present = [*present, note]  # its tasks may be at work
        if present and not overwrite:
            other = "choose another folder, or remove this one"
            if self._part is None:
                other = "choose another folder, or pass --overwrite to replace it"
            raise ValueError(
                f"{self.out}: holds {present[0].name} of a build with another recipe, source "
                f"table or salt; {other}"
            )
        if not present and (recipes := sorted(self.out.glob("*.yaml"))):
            raise ValueError(
                f"{self.out}: a folder of recipes ({recipes[0].name}); shards need one of their own"
            )
        self._wipe()
        write_atomically(note, json.dumps(mine).encode())

    def keep_outline(self, outline: bytes) -> None:
        """Keep what `shards merge` needs; all tasks of a build would write the same."""
        with locks.held(self.notes / "beginning", _PATIENCE_S):
            if self._part is None or not (self.notes / "outline.json").exists():
                write_atomically(self.notes / "outline.json", outline)

    def outline(self) -> bytes | None:
        """What was kept; None where no build is under way here."""
        file = self.notes / "outline.json"
        return file.read_bytes() if file.exists() else None

    def records_of(self, jobs: Sequence[Job]) -> dict[str, ShardRecord | None]:
        """The record of each job by its name, None where the shard is not complete."""
        return {job.name: self.record_of(job) for job in jobs}

    def record_of(self, job: Job) -> ShardRecord | None:
        """The record of a shard that is complete, else None."""
        try:
            record = parse_record((self.notes / f"{job.name}.json").read_text())
        except FileNotFoundError:
            return None
        tar, index = self.out / record.shard.file, self.out / record.shard.index
        if record.shard.images and not (tar.exists() and index.exists()):
            return None
        return record

    def note(self, job: Job, record: ShardRecord) -> None:
        """Remember that a shard is complete; called after its files are in place."""
        write_atomically(self.notes / f"{job.name}.json", json.dumps(asdict(record)).encode())

    def forget(self, job: Job) -> None:
        """Have a shard made anew by the next build."""
        (self.notes / f"{job.name}.json").unlink(missing_ok=True)

    def discard(self, shard: Shard) -> None:
        """Take a shard away that is not what it should be."""
        for file in (shard.file, shard.index):
            (self.out / file).unlink(missing_ok=True)

    def write(self, name: str, data: bytes) -> None:
        """A small file beside the shards, whole or as it was."""
        write_atomically(self.out / name, data)

    def conclude(self, manifest: Manifest) -> Manifest:
        """Write the manifest, which makes the folder a set of shards."""
        manifest.save()
        return manifest

    def close(self) -> None:
        """Remove the notes of a build whose manifest is written."""
        if self._part is not None:
            return  # the others may be at work, and `shards merge` needs them
        for path in self.notes.glob("*"):
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def _products(self) -> list[Path]:
        """The manifest and the shards: a folder that loses the manifest first is no data set."""
        names = ("manifest.json", "*.tar", "*.idx")
        return [path for name in names for path in sorted(self.out.glob(name))]

    def _wipe(self) -> None:
        for path in self._products():
            path.unlink()
        for pattern in ("*.json", "*.part"):
            for path in self.notes.glob(pattern):
                path.unlink()


def parse_record(text: str | bytes) -> ShardRecord:
    """A record as `note` wrote it."""
    body: dict[str, Any] = json.loads(text)
    body["rejected"] = tuple((where, reason) for where, reason in body["rejected"])
    return ShardRecord(shard=Shard(**body.pop("shard")), **body)
