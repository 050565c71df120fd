"""What a trainer's precision must not convert of a batch: places, which 16 bits would move."""

from __future__ import annotations

from dataclasses import fields
from typing import Generic, TypeVar, cast

import torch

T = TypeVar("T")


class Kept(Generic[T]):
    """A dataclass of tensors that stays as it is on its way, but for the device.

    Under `bf16-true` Lightning converts every tensor of a batch that it finds in dataclasses, lists
    and mappings; this is none of them, and `to` is what it asks for when it moves a batch.
    """

    def __init__(self, value: T) -> None:
        self.value = value

    def to(self, device: torch.device) -> Kept[T]:
        """The same with its tensors on a device."""
        columns = fields(self.value)  # type: ignore[arg-type]  # a type variable
        return Kept(type(self.value)(*(getattr(self.value, f.name).to(device) for f in columns)))


def kept(value: T | None) -> T | None:
    """For a batch that goes to the device next, where `opened` takes it out."""
    return None if value is None else cast(T, Kept(value))


def opened(value: T | None) -> T | None:
    """What was kept; anything else as it is."""
    return cast(T, value.value) if isinstance(value, Kept) else value
