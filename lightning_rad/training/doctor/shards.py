"""Whether shards can be read: each opened, its index held against it, some images decoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from lightning_rad.data.decode import DecodeError, decode
from lightning_rad.data.source import BadSampleError, ShardSource
from lightning_rad.manifest import Index, Manifest, ManifestError, Shard, load_index, load_manifest
from lightning_rad.training.doctor.finding import Finding

_TOLD: Final = 5
_HEADER: Final = 512
_NAME: Final = 100
"""Bytes of a tar header, and of the name that it begins with."""


def open_manifest(folder: Path) -> tuple[Manifest | None, Finding]:
    """The manifest, or None, and what there is to say of it."""
    what = f"manifest {folder}"
    try:
        manifest = load_manifest(folder)
    except (ManifestError, OSError) as error:
        return None, Finding("failed", what, str(error), "build it, or give another --manifest")
    images = sum(shard.images for shard in manifest.shards)
    value = f"{images} images in {len(manifest.shards)} shards, digest {manifest.digest}"
    return manifest, Finding("ok", what, value)


def readable(manifest: Manifest) -> Finding:
    """Every shard by its size, its index and three of its images; bad ones are named."""
    bad = {shard.file: told for shard in manifest.shards if (told := _wrong(manifest, shard))}
    what = f"shards of {manifest.root}"
    if not bad:
        return Finding("ok", what, f"{len(manifest.shards)} open, a sample of each is decoded")
    named = [f"{file}: {told}" for file, told in list(bad.items())[:_TOLD]]
    more = [f"and {len(bad) - _TOLD} more"] if len(bad) > _TOLD else []
    value = f"{len(bad)} of {len(manifest.shards)} are bad: " + "; ".join([*named, *more])
    remedy = "copy or build these again; `lightning-rad shards verify` reads every byte"
    return Finding("failed", what, value, remedy)


def places(manifest: Manifest) -> Iterator[tuple[Path, int, int]]:
    """(file, offset, bytes) of every image of the shards whose indexes can be read."""
    for shard in manifest.shards:
        try:
            images = load_index(manifest, [shard]).images
        except (ManifestError, OSError):
            continue
        for image in images:
            yield manifest.root / shard.file, int(image["offset"]), int(image["size"])


def _wrong(manifest: Manifest, shard: Shard) -> str:
    """What is wrong with a shard, in one line; "" where nothing is seen."""
    try:
        bytes_here = (manifest.root / shard.file).stat().st_size
        if bytes_here != shard.bytes:
            return f"{bytes_here} bytes, the manifest says {shard.bytes}"
        index = load_index(manifest, [shard])
        source, last = ShardSource(index), len(index.images) - 1
        for image in sorted({0, last // 2, last}) if last >= 0 else []:
            _check_image(index, source, image)
    except OSError as error:
        return error.strerror or str(error)
    except (ManifestError, BadSampleError, DecodeError) as error:
        return str(error).removeprefix(f"{manifest.root / shard.file}, ")
    return ""


def _check_image(index: Index, source: ShardSource, image: int) -> None:
    """Raise DecodeError or BadSampleError unless an image is where the index says, and opens."""
    record = index.images[image]
    study, suffix = int(record["study"]), record["suffix"].decode()
    key = index.studies[study]["key"].decode()
    try:
        decode(*source.image(image))
    except DecodeError as error:
        raise DecodeError(f"key {key}: {error}") from None
    source.record(study)
    file = index.files[int(index.shard_of_study[study])]
    with file.open("rb") as stream:
        stream.seek(int(record["offset"]) - _HEADER)
        name = stream.read(_NAME).split(b"\0")[0].decode(errors="replace")
    member, sample = name.rpartition("/")[2], key.rpartition("/")[2]
    fits = member.startswith(f"{sample}.") and member.lower().endswith(f".{suffix.lower()}")
    if not fits and len(name) < _NAME:  # a longer one is cut off there
        raise DecodeError(f"the index says key {key}, {suffix}; the tar has '{name}' there")
