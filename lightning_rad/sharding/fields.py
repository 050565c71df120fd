"""Strict reading of settings: a mapping becomes a dataclass, a mistyped key is named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

Settings = TypeVar("Settings", bound="DataclassInstance")


def strictly(kind: type[Settings], values: object, where: str) -> Settings:
    """Build a dataclass from a mapping read from YAML.

    where: how the user knows the mapping ("shards/x.yaml: image"). Raises ValueError naming
    unknown and missing keys and those accepted; checks of the values are the dataclass' own.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where}: expected keys with values, got {values!r}")
    accepted = {f.name: f for f in fields(kind)}
    for key in values:
        if key not in accepted:
            raise ValueError(f"{where}: unknown key '{key}'; accepted are {', '.join(accepted)}")
    missing = [name for name, f in accepted.items() if _is_required(f) and name not in values]
    if missing:
        raise ValueError(f"{where}: missing key '{missing[0]}'")
    try:
        return kind(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _is_required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING
