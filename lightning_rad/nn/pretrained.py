"""Weights to start from, out of a local file into a network, every tensor accounted for."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_rad import checkpoints
from lightning_rad.nn.position import POS_EMBED, resampled

log = logging.getLogger(__name__)

ENVELOPES = ("state_dict", "model")
"""Entries of a checkpoint in which its state dict may lie."""

STUDENT = "encoder.net."
"""Where the checkpoint of an objective holds the encoder that it trains."""

CONFIG_ENTRY = "objective_config"
"""Entry of a checkpoint with the config of the objective that wrote it."""


def load_pretrained(
    net: nn.Module,
    file: str,
    *,
    stems: Collection[str],
    heads: Collection[str],
    fixed: Collection[str] = (),
) -> tuple[str, ...]:
    """Fill every tensor of `net` from a file, or raise ValueError and say what did not fit.

    file: .safetensors, or anything `torch.load(weights_only=True)` reads (.pth, .pt, .bin, .ckpt),
    or a checkpoint folder, or a folder of checkpoints, which means its newest whole one.
    Of a checkpoint of one of our objectives the encoder that it trained is taken, and all else
    (projector, twin, queue) left aside. Otherwise the state dict may be an entry `state_dict` or
    `model`, and its keys may share a prefix such as `module.`. stems: the convolutions that read
    the image, by module name; made for three channels and asked for one, their weights are summed
    over the channels, so that a gray image gives what its three equal channels gave. heads: the
    classifiers, by module name; their tensors are left aside. fixed: tensors of `net` that keep
    their values. Counters of batch norms may be missing; a position embedding that differs in its
    grid alone is resampled; nothing else may differ.

    Logs the counts of it all in one line and returns the names of the tensors left aside.
    """
    weights = read_weights(file)
    wanted = {k: v for k, v in net.state_dict().items() if k not in fixed}
    found, aside = _encoder_of(weights.state, wanted)
    aside += [k for k in found if k in fixed or (k not in wanted and _is_below(k, heads))]
    unexpected = [k for k in found if k not in wanted and k not in aside]
    absent = [k for k in wanted if k not in found]
    missing = [k for k in absent if not k.endswith("num_batches_tracked")]
    fitted = {k: _sum_rgb(found[k], w, k, stems) for k, w in wanted.items() if k in found}
    moved = resampled(fitted[POS_EMBED], net) if POS_EMBED in fitted else None
    if moved:
        fitted[POS_EMBED] = moved[0]
    misfits = [
        f"{k} {tuple(v.shape)} for {tuple(wanted[k].shape)}"
        for k, v in fitted.items()
        if v.shape != wanted[k].shape
    ]
    damaged = [
        k for k, v in fitted.items() if v.shape == wanted[k].shape and not _is_number(v, wanted[k])
    ]
    fit = len(fitted) - len(misfits) - len(damaged)
    if missing or unexpected or misfits or damaged:
        raise ValueError(
            f"init_from: {file} fits {fit} of {len(wanted)} tensors"
            + _listing("missing", missing)
            + _listing("unexpected", unexpected)
            + _listing("of another shape", misfits)
            + _listing("not of finite numbers", damaged)
            + weights.origin
        )
    net.load_state_dict(fitted, strict=False)
    log.info(
        "init_from: %s: %d of %d tensors loaded, %d missing%s, 0 unexpected; left aside: %s%s",
        *(file, len(fitted), len(wanted), len(absent)),
        " (counters of batch norms)" if absent else "",
        _grouped(aside),
        f"; {moved[1]}" if moved else "",
    )
    return tuple(aside)


class Weights(NamedTuple):
    """What a file holds of a network."""

    state: dict[str, Tensor]
    origin: str
    """The encoder that a checkpoint of an objective was trained with, in words; else empty."""


def read_weights(file: str) -> Weights:
    """The tensors of a file or a checkpoint by name; runs no code from it. Raises ValueError."""
    path = Path(file)
    folder = checkpoints.is_checkpoint(path) or bool(checkpoints.checkpoints(path))
    if not folder and not path.is_file():
        raise ValueError(
            f"init_from: '{file}' is neither a file nor a checkpoint folder; nothing is downloaded"
        )
    try:
        content = _of_checkpoint(path) if folder else _read(path)
    except Exception as error:  # a damaged pickle can make its reader raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        if "weights_only" in str(error):
            reason = "it holds Python objects beside tensors; save the state_dict() alone"
        raise ValueError(f"init_from: {file} is not readable as weights: {reason}") from None
    origin = _origin(content)
    for entry in ENVELOPES:
        if isinstance(content, dict) and isinstance(content.get(entry), dict):
            content = content[entry]
    if not isinstance(content, dict) or not content:
        raise ValueError(f"init_from: {file} holds no state dict")
    strangers = [k for k, v in content.items() if not isinstance(v, Tensor)]
    if strangers:
        raise ValueError(f"init_from: {file}: not tensors: {strangers[:5]}")
    return Weights(content, origin)


def _read(path: Path) -> Any:
    if path.suffix != ".safetensors":
        return torch.load(path, map_location="cpu", weights_only=True)
    from safetensors.torch import load_file  # noqa: PLC0415 - needed for these files only

    return load_file(path)


def _of_checkpoint(path: Path) -> dict[str, Any]:
    """What a checkpoint folder holds; of its tensors the encoder's alone are read.

    Those that are left aside are empty in it, and those beside the weights None.
    """
    folder = checkpoints.resolve(path)
    keys: list[str] = []

    def note(key: str, *_: Any) -> None:
        keys.append(key)

    checkpoints.read(folder, place=note)
    student = f"state_dict.{STUDENT}"
    wanted = student if any(key.startswith(student) for key in keys) else "state_dict."

    def place(key: str, size: torch.Size, dtype: torch.dtype) -> Tensor | None:
        return torch.empty(size, dtype=dtype) if key.startswith(wanted) else None

    content = checkpoints.read(folder, place=place)
    state = content.get("state_dict", {})
    content["state_dict"] = {k: torch.empty(0) if v is None else v for k, v in state.items()}
    return content


def _origin(content: Any) -> str:
    """The config that built the encoder, where the file has one and it is as ours are."""
    for key in (CONFIG_ENTRY, "init_args", "encoder", "init_args"):
        content = content.get(key) if isinstance(content, Mapping) else None
    if not isinstance(content, Mapping):
        return ""
    told = [f"{k}={v}" for k, v in content.items() if v and k != "init_from"]
    return f"; its encoder was {', '.join(told)}"


def _encoder_of(
    state: dict[str, Tensor], wanted: Collection[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of the encoder under the names that a network has, and the other names."""
    student = {k.removeprefix(STUDENT): v for k, v in state.items() if k.startswith(STUDENT)}
    if student:
        return student, [k for k in state if not k.startswith(STUDENT)]
    return _without_prefix(state, wanted), []


def _without_prefix(found: dict[str, Tensor], wanted: Collection[str]) -> dict[str, Tensor]:
    """Take off what every key starts with and no wanted key does, one dotted part at a time."""
    while True:
        first = {k.partition(".")[0] for k in found}
        part = next(iter(first))
        if len(first) > 1 or any(k.partition(".")[0] == part for k in wanted) or part in found:
            return found
        found = {k.partition(".")[2]: v for k, v in found.items()}


def _is_number(found: Tensor, wanted: Tensor) -> bool:
    """Whether a tensor can stand for another: no quantised or lost weights."""
    if not wanted.is_floating_point():
        return True
    return found.is_floating_point() and bool(found.isfinite().all())


def _is_below(key: str, modules: Collection[str]) -> bool:
    return any(key.startswith(f"{m}.") for m in modules)


def _sum_rgb(weight: Tensor, target: Tensor, key: str, stems: Collection[str]) -> Tensor:
    """[O, 3*G, h, w] -> [O, G, h, w] for a stem that reads one channel (G > 1: space to depth)."""
    is_stem = key.endswith(".weight") and key.removesuffix(".weight") in stems
    if not is_stem or weight.ndim != 4 or weight.shape[1] != 3 * target.shape[1]:
        return weight
    grouped = weight.reshape(len(weight), target.shape[1], 3, *weight.shape[2:])
    return grouped.sum(2)


def _grouped(keys: Iterable[str]) -> str:
    """How many there are of each first part: "projector 4, twin 66"."""
    counts = Counter(k.partition(".")[0] for k in keys)
    return ", ".join(f"{part} {count}" for part, count in counts.items()) or "none"


def _listing(what: str, keys: list[str]) -> str:
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return f"; {len(keys)} {what}: {', '.join(keys[:5])}{more}" if keys else ""
