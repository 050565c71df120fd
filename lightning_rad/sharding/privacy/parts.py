"""The bytes of finished shards as texts that may say something, and codes that may not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lightning_rad.manifest import Manifest, read_index
from lightning_rad.schema import IMAGE_SUFFIXES
from lightning_rad.sharding.description import ENTRY
from lightning_rad.sharding.privacy.identifier import APART
from lightning_rad.sharding.privacy.pictures import picture_parts
from lightning_rad.sharding.tar import BLOCK, walk

NUMBERS: Final = {*ENTRY, *"xywh", "images", "label", "saliency"}
"""Keys of a study's JSON whose numbers are the format's own, and no identifiers."""

HEADER: Final = ((0, 100), (157, 257), (265, 329), (345, 500))
"""What may be words in a header of a tar: name, link, owner and group, prefix (POSIX ustar)."""

_LINES: Final = re.compile(r"\b(?:line|file|image) \d+(?: of \d+)?\b")
"""How rejected.jsonl says where something was, in numbers of its own."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a folder of shards. where: file and member, at: the same without a name in it.

    text: what it says. code: bytes that are no text, such as pixels. odd: what is wrong with it
    whatever it says.
    """

    where: str
    at: str
    text: str = ""
    code: bytes = b""
    odd: str = ""


def parts_of(manifest: Manifest) -> Iterator[Part]:
    """Every byte of every file in the folder of a manifest, and the names of the files.

    Raises ShardError or ManifestError for shards that cannot be read.
    """
    root = manifest.root
    shards = {root / shard.file for shard in manifest.shards}
    indexes = {root / shard.index for shard in manifest.shards}
    files = sorted({p for p in root.rglob("*") if p.is_file()} | shards | indexes)
    for number, path in enumerate(files, 1):
        at = f"{root}: file {number} of {len(files)}, sorted"
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        yield Part(f"{at}, its name", f"{at}, its name", name)
        if path.suffix == ".tar":
            yield from _tar_parts(path)
        elif path in indexes:
            yield from _index_parts(path)
        else:
            yield from _file_parts(path, at)


def _tar_parts(tar: Path) -> Iterator[Part]:
    end = 0
    with tar.open("rb") as file:
        for member in walk(tar):
            at = f"{tar}: at offset {member.offset}"
            file.seek(end)
            yield Part(f"{at}, header", f"{at}, header", _header(file.read(member.offset - end)))
            yield from _member_parts(
                member.name, file.read(member.size), f"{tar}: {member.name}", at
            )
            end = member.offset + member.size
        file.seek(end)
        yield Part(f"{tar}: its end", f"{tar}: its end", _text(file.read().strip(b"\0")) or "")


def _header(gap: bytes) -> str:
    """The words between the data of two members; of headers not their numbers."""
    padding = len(gap) % BLOCK
    told = [gap[:padding]]
    for place in range(padding, len(gap), BLOCK):
        block = gap[place : place + BLOCK]
        header = block[257:262] == b"ustar"
        told += [block[a:b] for a, b in HEADER] if header else [block]
    return APART.join(part.replace(b"\0", b" ").decode("utf-8", "replace") for part in told)


def _member_parts(name: str, data: bytes, where: str, at: str) -> Iterator[Part]:
    suffix = name.rpartition(".")[2].lower()
    if suffix in IMAGE_SUFFIXES:
        yield Part(where, at, *picture_parts(data))
    elif suffix == "json":
        yield from _json_parts(data, where, at)
    else:
        text = _text(data)
        yield Part(where, at, text or "", b"" if text is not None else data)


def _json_parts(data: bytes, where: str, at: str) -> Iterator[Part]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        yield Part(where, at, data.decode("utf-8", "replace"))
        return
    said, coded = list[str](), list[str]()
    _collect(body, said, coded)
    yield Part(where, at, APART.join(said), "\n".join(coded).encode())


def _collect(value: Any, said: list[str], coded: list[str], key: str = "") -> None:
    """Every key and string of a JSON value, and the whole numbers that are not the format's."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            said.append(name)
            _collect(inner, said, coded, name)
    elif isinstance(value, list):
        for inner in value:
            _collect(inner, said, coded, key)
    elif isinstance(value, str):
        (coded if key == "saliency" else said).append(value)
    elif isinstance(value, int) and not isinstance(value, bool) and key not in NUMBERS:
        said.append(str(value))


def _index_parts(path: Path) -> Iterator[Part]:
    studies, _ = read_index(path)
    keys = (bytes(key).decode("utf-8", "replace") for key in studies["key"])
    yield Part(str(path), str(path), APART.join(keys), path.read_bytes())


def _file_parts(path: Path, at: str) -> Iterator[Part]:
    """A file beside the shards. Of manifest.json, whose numbers are counts, the words alone."""
    data = path.read_bytes()
    if path.name == "manifest.json":
        said = list[str]()
        _collect(json.loads(data, parse_int=float), said, said)
        yield Part(str(path), at, APART.join(said))
        return
    text = _text(data)
    if path.name == "rejected.jsonl" and text is not None:
        text = _LINES.sub(APART, text)
    yield Part(str(path), at, text or "", b"" if text is not None else data)


def _text(data: bytes) -> str | None:
    """What bytes say, None where they are no text."""
    try:
        return None if b"\0" in data else data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
