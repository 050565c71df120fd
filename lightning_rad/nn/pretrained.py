"""Weights from a local file into a network, every tensor accounted for."""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

log = logging.getLogger(__name__)

ENVELOPES = ("state_dict", "model")
"""Entries of a checkpoint in which its state dict may lie."""


def load_pretrained(
    net: nn.Module, file: str, *, stems: Collection[str], heads: Collection[str]
) -> tuple[str, ...]:
    """Fill every tensor of `net` from a state dict, or raise ValueError and say what did not fit.

    file: .safetensors, or anything `torch.load(weights_only=True)` reads (.pth, .pt, .bin); the
    state dict may be an entry `state_dict` or `model` of it, its keys may share a prefix such as
    `module.`. stems: the convolutions that read the image, by module name; made for three channels
    and asked for one, their weights are summed over the channels, so that a gray image gives what
    its three equal channels gave. heads: the classifiers, by module name; only their tensors may
    be left over. Counters of batch norms may be missing.

    Returns the names of the tensors that were dropped, which are logged too.
    """
    wanted = net.state_dict()
    found = _without_prefix(read_state_dict(file), wanted)
    dropped = tuple(k for k in found if k not in wanted and _is_below(k, heads))
    unexpected = [k for k in found if k not in wanted and k not in dropped]
    missing = [k for k in wanted if k not in found and not k.endswith("num_batches_tracked")]
    fitted = {k: _sum_rgb(found[k], w, k, stems) for k, w in wanted.items() if k in found}
    misfits = [
        f"{k} {tuple(fitted[k].shape)} for {tuple(w.shape)}"
        for k, w in wanted.items()
        if k in fitted and fitted[k].shape != w.shape
    ]
    if missing or unexpected or misfits:
        raise ValueError(
            f"pretrained: {file} fits {len(fitted) - len(misfits)} of {len(wanted)} tensors"
            + _listing("missing", missing)
            + _listing("unexpected", unexpected)
            + _listing("of another shape", misfits)
        )
    net.load_state_dict(fitted, strict=False)
    log.info("%s: %d tensors loaded, dropped of the head: %s", file, len(fitted), dropped or "none")
    return dropped


def read_state_dict(file: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name; runs no code from it. Raises ValueError."""
    path = Path(file)
    if not path.is_file():
        raise ValueError(f"pretrained: '{file}' is not a file; nothing is downloaded")
    try:
        content = _read(path)
    except Exception as error:  # a damaged pickle can make its reader raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"pretrained: {file} is not readable as weights: {reason}") from None
    for entry in ENVELOPES:
        if isinstance(content, dict) and isinstance(content.get(entry), dict):
            content = content[entry]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"pretrained: {file} holds no state dict")
    strangers = [k for k, v in content.items() if not isinstance(v, Tensor)]
    if strangers:
        raise ValueError(f"pretrained: {file}: not tensors: {strangers[:5]}")
    return content


def _read(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True)
    from safetensors.torch import load_file  # noqa: PLC0415 - needed for these files only

    return load_file(path)


def _without_prefix(found: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Take off what every key starts with and no wanted key does, one dotted part at a time."""
    while True:
        first = {k.partition(".")[0] for k in found}
        part = next(iter(first))
        if len(first) > 1 or any(k.partition(".")[0] == part for k in wanted) or part in found:
            return found
        found = {k.partition(".")[2]: v for k, v in found.items()}


def _is_below(key: str, modules: Collection[str]) -> bool:
    return any(key.startswith(f"{m}.") for m in modules)


def _sum_rgb(weight: Tensor, target: Tensor, key: str, stems: Collection[str]) -> Tensor:
    """[O, 3*G, h, w] -> [O, G, h, w] for a stem that reads one channel (G > 1: space to depth)."""
    is_stem = key.endswith(".weight") and key.removesuffix(".weight") in stems
    if not is_stem or weight.ndim != 4 or weight.shape[1] != 3 * target.shape[1]:
        return weight
    grouped = weight.reshape(len(weight), target.shape[1], 3, *weight.shape[2:])
    return grouped.sum(2)


def _listing(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return f"; {len(keys)} {what}: {', '.join(keys[:5])}{more}" if keys else ""
