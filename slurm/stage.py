"""Copy a folder of shards to a disk of this node, checked by the manifest's sha256.

A file comes into place by rename, whole and checked, and the manifest last: what is there already
is kept, so a job that was requeued to this node, or cut off while copying, does not begin anew.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lightning_rad.manifest import load_manifest

BLOCK = 1 << 24


def stage(source: Path, target: Path) -> int:
    """Copy what is missing; the number of files that were. Raises ValueError where bytes differ."""
    manifest = load_manifest(source)
    files = {s.file: s.sha256 for s in manifest.shards}
    files |= {s.index: s.index_sha256 for s in manifest.shards}
    target.mkdir(parents=True, exist_ok=True)
    with (target / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one job of a node copies, the others wait for it
        if (target / "manifest.json").exists():
            return 0
        absent = [name for name in files if not (target / name).exists()]
        needed = sum((source / name).stat().st_size for name in absent)
        free = shutil.disk_usage(target).free
        if needed > free:
            raise ValueError(f"{target}: {needed >> 20} MiB to copy, {free >> 20} MiB free")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda name: copy(source / name, target / name, files[name]), absent))
        copy(source / "manifest.json", target / "manifest.json", None)
    return len(absent)


def copy(source: Path, target: Path, sha256: str | None) -> None:
    """Copy one file beside its place, check it, and put it there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    digest = hashlib.sha256()
    with source.open("rb") as reader, part.open("wb") as writer:
        while block := reader.read(BLOCK):
            digest.update(block)
            writer.write(block)
        writer.flush()
        os.fsync(writer.fileno())
    if sha256 not in (None, digest.hexdigest()):
        part.unlink()
        raise ValueError(f"{source} is not what its manifest says; lightning-rad shards verify")
    part.rename(target)


if __name__ == "__main__":
    try:
        number = stage(Path(sys.argv[1]), Path(sys.argv[2]))
    except (ValueError, OSError) as error:
        sys.exit(f"lightning-rad: {os.uname().nodename}: {error}")
    sys.stdout.write(f"{os.uname().nodename}: {number} files copied to {sys.argv[2]}\n")
