"""Read, check and index a manifest: what a folder of shards holds, and where each byte of it lies.

A shard folder holds `manifest.json`, the shards (`train-000000.tar`, plain USTAR, one sample a
study) and beside each shard its index (`train-000000.idx`): two NumPy arrays in one file, STUDY
records and IMAGE records, in the order of the tar. Readers never parse a tar: they `pread`.
"""

from lightning_rad.manifest.contents import (
    FORMAT,
    Manifest,
    ManifestError,
    Shard,
    load_manifest,
    write_atomically,
)
from lightning_rad.manifest.index import (
    IMAGE,
    STUDY,
    Index,
    image_entry,
    load_index,
    read_index,
    write_index,
)

__all__ = [
    "FORMAT",
    "IMAGE",
    "STUDY",
    "Index",
    "Manifest",
    "ManifestError",
    "Shard",
    "image_entry",
    "load_index",
    "load_manifest",
    "read_index",
    "write_atomically",
    "write_index",
]
