"""A recipe: the YAML file that says how a source of radiographs becomes shards."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # what OmegaConf raises for malformed files

from lightning_rad.schema import SPLITS
from lightning_rad.sharding.fields import strictly
from lightning_rad.sharding.source import Source


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """How images are stored.

    short_side: images are shrunk to it, never enlarged; null keeps the source's size.
    quality: of the JPEG (1 to 100) of 8-bit images; null stores them as PNG, without loss.
    """

    short_side: int | None = None
    quality: int | None = 90

    def __post_init__(self) -> None:
        _check_integer("short_side", self.short_side, 8, 1 << 15)
        _check_integer("quality", self.quality, 1, 100)


@dataclass(frozen=True, slots=True)
class PrivacySettings:
    """What is done for privacy beyond hashes; off unless asked for, and a help, not a guarantee.

    scrub_reports: dates, names after titles, phone and record numbers become ___, see
    `modalities.scrub`. review_text: pictures that seem to bear text near a border are listed in
    review.jsonl beside the shards, see `modalities.burned_in`; they are kept as they are.
    """

    scrub_reports: bool = False
    review_text: bool = False

    def __post_init__(self) -> None:
        for key in ("scrub_reports", "review_text"):
            if not isinstance(getattr(self, key), bool):
                raise ValueError(f"'{key}' is true or false, not {getattr(self, key)!r}")


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """The class that reads the raw data, by its import path, and its arguments."""

    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Recipe:
    """What `shards build` needs to know, apart from where the raw data lies.

    name: of the set of shards. namespace: whose patient identifiers these are; recipes that share
    it, the salt and the `splits`, and have no official splits, place the same patient in the same
    split. salt: "public" for data that identifies nobody,
    else null. labels: the findings, in the order of the label matrix; null takes those that occur,
    sorted. splits: split -> share of the patients, for those without an official split.
    """

    name: str
    namespace: str
    source: SourceSettings
    salt: str | None = None
    labels: tuple[str, ...] | None = None
    splits: Mapping[str, float] = field(default_factory=lambda: {"train": 1.0})
    image: ImageSettings = field(default_factory=ImageSettings)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)
    images_per_shard: int = 1000
    max_rejected_fraction: float = 0.01
    url: str = ""
    licence: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        for key in ("name", "namespace"):
            if not isinstance(getattr(self, key), str) or not getattr(self, key):
                raise ValueError(f"'{key}' must be a word, not {getattr(self, key)!r}")
        if self.salt not in (None, "public"):
            raise ValueError(f"'salt' is null (a secret file) or 'public', not {self.salt!r}")
        _check_integer("images_per_shard", self.images_per_shard, 1, 1 << 24)
        if not 0 <= _number("max_rejected_fraction", self.max_rejected_fraction) <= 1:
            raise ValueError("'max_rejected_fraction' must lie in 0 to 1")
        _check_splits(self.splits)
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError("'labels' names a finding twice")

    @property
    def digest(self) -> str:
        """Identity of the recipe: changes when any of its settings does."""
        settings = asdict(self)
        if self.privacy == PrivacySettings():  # as recipes were before there was this key
            del settings["privacy"]
        body = json.dumps(settings, sort_keys=True, default=str)
        return hashlib.sha256(body.encode()).hexdigest()[:16]


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file. Raises ValueError naming the file and the key at fault."""
    try:
        body: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such recipe") from None
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(body, dict):
        raise ValueError(f"{path}: a recipe is a mapping of keys to values")
    nested = {"source": SourceSettings, "image": ImageSettings, "privacy": PrivacySettings}
    for key, kind in nested.items():
        if key in body:
            body[key] = strictly(kind, body[key], f"{path}: {key}")
    if isinstance(body.get("labels"), list):
        body["labels"] = tuple(body["labels"])
    return strictly(Recipe, body, str(path))


def make_source(settings: SourceSettings, root: Path | None) -> Source:
    """Instantiate the source; `root` is given to a class that takes it. Raises ValueError."""
    module, _, name = settings.class_path.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"source.class_path '{settings.class_path}': {error}") from None
    parameters = inspect.signature(kind).parameters
    arguments = dict(settings.init_args)
    for key in arguments:
        if key not in parameters or key == "root":
            accepted = ", ".join(p for p in parameters if p != "root")
            raise ValueError(f"source.init_args: unknown key '{key}'; accepted are {accepted}")
    if "root" in parameters:
        if root is None and parameters["root"].default is inspect.Parameter.empty:
            raise ValueError("root: this recipe needs --root, the folder of the raw data")
        if root is not None:
            arguments["root"] = expand(root)
    try:
        return cast(Source, kind(**arguments))
    except TypeError as error:
        raise ValueError(f"source.init_args: {error}") from None


def expand(path: Path | str) -> Path:
    """A path with its environment variables put in; one that is not set is an error."""
    text = os.path.expanduser(os.path.expandvars(str(path)))
    if "$" in text:
        raise ValueError(f"{path}: an environment variable in this path is not set")
    return Path(text)


def _check_splits(splits: Mapping[str, float]) -> None:
    if not isinstance(splits, Mapping) or not splits or not set(splits) <= set(SPLITS):
        raise ValueError(f"'splits' maps {', '.join(SPLITS)} to shares, got {splits!r}")
    shares = [_number(f"splits.{k}", v) for k, v in splits.items()]
    if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"'splits' must be shares that add up to 1, they add to {sum(shares)}")


def _check_integer(key: str, value: object, low: int, high: int) -> None:
    if value is None and key != "images_per_shard":
        return
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ValueError(f"'{key}' must be an integer in {low} to {high}, not {value!r}")


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"'{key}' must be a number, not {value!r}")
    return float(value)
