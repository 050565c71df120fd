"""All reports of some shards, one after the other: for commands, not for training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from lightning_rad.data.source import ShardSource
from lightning_rad.manifest import load_index, load_manifest
from lightning_rad.storage.settings import Remote


def report_texts(manifests: Sequence[Path], *, split: str = "train") -> Iterator[tuple[str, bytes]]:
    """(shard and key, report as stored) of every study of a split, b"" where it has none.

    In the order of the manifests and their shards. Raises ManifestError where a manifest has no
    such split, and BadSampleError where a shard cannot be read.
    """
    for path in manifests:
        manifest = load_manifest(path, Remote())
        source = ShardSource(load_index(manifest, manifest.of_split(split)))
        for study in range(len(source.index.studies)):
            yield source.name(study), source.report(study)
