"""What a store already holds of a build whose shards are uploaded as they are finished.

Beside the shards lies `.build/PLAN/`: a record a shard, put after its tar and index, so that any
machine goes on where another one was killed. Nothing is ever deleted in a store: these few notes
stay, and so does what another build has put there.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

from lightning_rad.manifest import Manifest, Shard, load_manifest
from lightning_rad.sharding.indexing import ShardRecord
from lightning_rad.sharding.ledger import parse_record
from lightning_rad.sharding.part import Part
from lightning_rad.sharding.plan import Job, Plan
from lightning_rad.sharding.room import room
from lightning_rad.storage import locks
from lightning_rad.storage.folder import RemoteFolder
from lightning_rad.storage.settings import Remote

_GONE = b"{}"
"""A record that was taken back."""

Each = TypeVar("Each")
Told = TypeVar("Told")


class StoreLedger:
    """As `Ledger`, of a folder of a store. Shards are made in a folder of this machine's disk.

    That folder lies below $TMPDIR, is of this user alone, and holds a shard a worker at most. Two
    builds of one plan at once do work twice and harm nothing: they put the same bytes.
    """

    def __init__(self, url: str, part: Part | None = None) -> None:
        if url.startswith("http"):
            raise ValueError(f"{url}: shards are uploaded to s3:// and gs:// only")
        self.out = RemoteFolder(url, Remote())
        self._part = part
        self._plan = ""
        name = f"{url} {part.name if part else ''}"
        key = hashlib.sha256(name.encode()).hexdigest()[:16]
        self.workshop = Path(tempfile.gettempdir()) / f"lightning_rad-{os.getuid()}-{key}"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other build of this machine out of the workshop, and empty it."""
        with room(self.workshop, self.workshop):
            self.workshop.mkdir(mode=0o700, exist_ok=True)
            if self.workshop.stat().st_uid != os.getuid():
                raise ValueError(f"{self.workshop}: of another user; set TMPDIR to another folder")
            with (self.workshop / "lock").open("a+") as lock:
                if not locks.taken(lock.fileno()):
                    raise ValueError(f"{self.out}: another build of this machine is at work there")
                for part in self.workshop.glob("*.part"):
                    part.unlink()
                yield

    def finished(self, plan: Plan) -> Manifest | None:
        """The manifest, if this very plan was carried out there."""
        manifest = self.manifest()
        return manifest if manifest and manifest.details.get("plan") == plan.digest else None

    def manifest(self) -> Manifest | None:
        """The manifest that is there."""
        if self.out.size("manifest.json") is None:
            return None
        return load_manifest(str(self.out), self.out.remote)

    def lost(self, manifest: Manifest) -> dict[str, Shard]:
        """Shards of a finished build without their index or their whole tar, by the job's name."""

        def whole(shard: Shard) -> bool:
            there = self.out.size(shard.index) is not None
            return there and self.out.size(shard.file) == shard.bytes

        found = zip(manifest.shards, self._all(whole, manifest.shards), strict=True)
        return {Path(shard.file).stem: shard for shard, there in found if not there}

    def begin(self, plan: Plan, *, overwrite: bool) -> None:
        """Claim the place for a plan. Raises ValueError where it holds another build's shards."""
        if overwrite:
            raise ValueError(
                f"{self.out}: nothing is overwritten in a store; remove what is there with the "
                "store's own tools, or choose another place"
            )
        self._plan = plan.digest
        note = self._read(".build/plan.json")
        if note is not None and json.loads(note) == {"plan": plan.digest}:
            return
        names = ["manifest.json", *(f"{job.name}.tar" for job in plan.jobs[:1])]
        there = [".build/plan.json"] if note is not None else []
        there += [name for name in names if self.out.size(name) is not None]
        if there:
            raise ValueError(
                f"{self.out}: holds {there[0]} of a build with another recipe, source table or "
                "salt; choose another place"
            )
        self.write(".build/plan.json", json.dumps({"plan": plan.digest}).encode())

    def keep_outline(self, outline: bytes) -> None:
        """Keep what `shards merge` needs."""
        self.write(".build/outline.json", outline)

    def outline(self) -> bytes | None:
        """What was kept; None where no build was begun."""
        kept = self._read(".build/outline.json")
        if kept is not None:
            self._plan = json.loads(kept)["plan"]
        return kept

    def records_of(self, jobs: Sequence[Job]) -> dict[str, ShardRecord | None]:
        """The record of each job by its name, None where the shard is not complete."""
        found = self._all(self._record_of, jobs)
        return {job.name: record for job, record in zip(jobs, found, strict=True)}

    def _record_of(self, job: Job) -> ShardRecord | None:
        kept = self._read(self._note(job))
        return None if kept in (None, _GONE) else parse_record(kept or _GONE)

    def note(self, job: Job, record: ShardRecord) -> None:
        """Remember that a shard is complete; called after it was put."""
        self.write(self._note(job), json.dumps(asdict(record)).encode())

    def forget(self, job: Job) -> None:
        """Have a shard made anew by the next build."""
        self.write(self._note(job), _GONE)

    def discard(self, shard: Shard) -> None:
        """Nothing is deleted; readers refuse the shard by its checksum."""

    def write(self, name: str, data: bytes) -> None:
        """A small file beside the shards."""
        file = self.workshop / f"{Path(name).name}.{os.getpid()}.part"
        file.write_bytes(data)
        self.out.put(name, file)
        file.unlink()

    def conclude(self, manifest: Manifest) -> Manifest:
        """Put the manifest, which makes the place a set of shards."""
        made = replace(manifest, root=self.workshop).save()
        self.out.put("manifest.json", made)
        made.unlink()
        return replace(manifest, root=Path(os.devnull), remote=self.out)

    def close(self) -> None:
        """The notes stay."""

    def _note(self, job: Job) -> str:
        return f".build/{self._plan}/{job.name}.json"

    def _read(self, name: str) -> bytes | None:
        return None if self.out.size(name) is None else self.out.read(name)

    def _all(self, do: Callable[[Each], Told], those: Sequence[Each]) -> list[Told]:
        with ThreadPoolExecutor(self.out.remote.connections) as pool:
            return list(pool.map(do, those))
