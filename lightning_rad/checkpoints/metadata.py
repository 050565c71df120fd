"""The `.metadata` of torch.distributed.checkpoint is a pickle: read here through an allow-list."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING,
    Metadata,
    StorageMeta,
    TensorStorageMetadata,
)

METADATA = ".metadata"

_PLANS = "torch.distributed.checkpoint.metadata"
_ALLOWED = {
    (_PLANS, "Metadata"),
    (_PLANS, "MetadataIndex"),
    (_PLANS, "TensorStorageMetadata"),
    (_PLANS, "TensorProperties"),
    (_PLANS, "ChunkStorageMetadata"),
    (_PLANS, "BytesStorageMetadata"),
    (_PLANS, "StorageMeta"),
    (_PLANS, "_MEM_FORMAT_ENCODING"),
    ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
    ("torch.serialization", "_get_layout"),
    ("torch", "Size"),
}
"""Classes of the plan, none of which does anything when it is made."""


def _member(kind: Any, name: str) -> Any:
    """What some Pythons, 3.11.2 among them, pickle as getattr(class, name): a member of an enum."""
    if kind is not _MEM_FORMAT_ENCODING:
        raise pickle.UnpicklingError(f"it asks {kind} for {name}, which no checkpoint needs")
    return kind[name]


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("builtins", "getattr"):
            return _member
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or (module, name) in _ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no checkpoint needs")


class Reader(FileSystemReader):
    """Reads tensors of a checkpoint whose `.metadata` names nothing but the classes of a plan."""

    def read_metadata(self, *_args: Any, **_kwargs: Any) -> Metadata:
        """The plan. Raises ValueError for one that would run code or holds other than tensors."""
        file = Path(self.path) / METADATA
        try:
            with file.open("rb") as content:
                metadata = _Unpickler(content).load()
        except Exception as error:  # a damaged pickle can make its reader raise anything
            raise ValueError(f"{file}: not readable: {error}") from None
        if not isinstance(metadata, Metadata) or not isinstance(metadata.storage_data, dict):
            raise ValueError(f"{file}: not the metadata of a checkpoint")
        for key, kind in metadata.state_dict_metadata.items():
            if not isinstance(kind, TensorStorageMetadata):
                raise ValueError(f"{file}: {key} is not a tensor")
        for info in metadata.storage_data.values():
            if Path(info.relative_path).name != info.relative_path or info.transform_descriptors:
                raise ValueError(f"{file}: {info.relative_path} is no file of this checkpoint")
        metadata.storage_meta = StorageMeta()
        return metadata
