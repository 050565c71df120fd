"""What a build folder already holds, so that a build can be killed, resumed or refused."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from lightning_rad.manifest import Manifest, Shard, load_manifest, write_atomically
from lightning_rad.sharding.indexing import ShardRecord
from lightning_rad.sharding.plan import Job, Plan


class Ledger:
    """The state of one output folder; its notes lie in `.build/` and go when the build is done."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.notes = out / ".build"

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other build out of this folder; the system lets go if this process dies.

        Raises ValueError where another build is at work in it, and where it can be no folder.
        """
        try:
            self.notes.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise ValueError(f"{self.out}: a file, or in one; give a folder") from None
        with (self.notes / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ValueError(f"{self.out}: another build is at work in this folder") from None
            try:
                yield
            finally:
                if [p.name for p in self.notes.glob("*")] == ["lock"]:
                    shutil.rmtree(self.notes)

    def finished(self, plan: Plan) -> Manifest | None:
        """The manifest, if this very plan was carried out here; files may be lost since."""
        if not (self.out / "manifest.json").exists():
            return None
        manifest = load_manifest(self.out)
        return manifest if manifest.details.get("plan") == plan.digest else None

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
        note = self.notes / "plan.json"
        mine = {"plan": plan.digest}
        if note.exists() and json.loads(note.read_text()) == mine:
            for part in self.notes.glob("*.part"):
                part.unlink()
            return
        if (present := self._products()) and not overwrite:
            raise ValueError(
                f"{self.out}: holds {present[0].name} of a build with another recipe, source "
                f"table or salt; choose another folder, or pass --overwrite to replace it"
            )
        if not present and (recipes := sorted(self.out.glob("*.yaml"))):
            raise ValueError(
                f"{self.out}: a folder of recipes ({recipes[0].name}); shards need one of their own"
            )
        self._wipe()
        write_atomically(note, json.dumps(mine).encode())

    def record_of(self, job: Job) -> ShardRecord | None:
        """The record of a shard that is complete, else None."""
        try:
            body = json.loads((self.notes / f"{job.name}.json").read_text())
        except FileNotFoundError:
            return None
        shard = Shard(**body.pop("shard"))
        tar, index = self.out / shard.file, self.out / shard.index
        if shard.images and not (tar.exists() and index.exists()):
            return None
        body["rejected"] = tuple((where, reason) for where, reason in body["rejected"])
        return ShardRecord(shard=shard, **body)

    def note(self, job: Job, record: ShardRecord) -> None:
        """Remember that a shard is complete; called after its files are in place."""
        write_atomically(self.notes / f"{job.name}.json", json.dumps(asdict(record)).encode())

    def forget(self, job: Job) -> None:
        """Have a shard made anew by the next build."""
        (self.notes / f"{job.name}.json").unlink(missing_ok=True)

    def close(self) -> None:
        """Remove the notes of a build whose manifest is written."""
        for path in self.notes.glob("*"):
            if path.name != "lock":
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
