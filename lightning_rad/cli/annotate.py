"""`lightning-rad shards annotate`: what a trained predictor of gaze says of the images of shards.

Shape letters: N images, S side of a map, h w pixels of a view.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from lightning_rad import checkpoints
from lightning_rad.data.decode import DecodeError, decode
from lightning_rad.data.views.render_cpu import render_cpu
from lightning_rad.data.views.render_device import normalise
from lightning_rad.data.views.whole_image import WholeImage
from lightning_rad.manifest import Manifest
from lightning_rad.nn.pretrained import CONFIG_ENTRY
from lightning_rad.objectives.gaze_predictor import GazePredictor
from lightning_rad.sharding.annotate import annotate as write_annotated

Pixels = npt.NDArray[np.uint8]


def annotate(
    shards: Path,
    out: Path,
    *,
    gaze: Path,
    batch: int = 64,
    threads: int = 4,
    device: str = "auto",
    overwrite: bool = False,
) -> Manifest:
    """Write shards once more, each image with the map of attention that a predictor makes of it.

    The record of each image gains `saliency`, and nothing else changes. Run again after a crash it
    continues.

    Args:
        shards: Folder with a manifest, of `shards build` or `shards index`.
        out: Folder of the new shards, outside of the old.
        gaze: Checkpoint of a GazePredictor, or a folder of them, which means the newest.
        batch: Images predicted at a time.
        threads: Threads that decode images.
        device: auto is a GPU where there is one; cpu, cuda, mps.
        overwrite: Replace whatever shards lie in `out`.
    """
    if threads < 1:
        raise ValueError(f"annotate.threads: {threads} is not at least 1")
    place = _device(device)
    folder = checkpoints.resolve(gaze)
    predictor, how = _load(folder)
    # its files by their digests: the same weights wherever they lie
    files = repr(sorted(checkpoints.read_contents(folder).files.items()))
    identity = hashlib.sha256(files.encode()).hexdigest()[:16]
    with ThreadPoolExecutor(threads) as pool, torch.inference_mode():
        maps = Maps(predictor.to(place).eval().maps_of, how, device=place, pool=pool)
        return write_annotated(
            shards,
            out,
            maps,
            details={"checkpoint": identity} | how,
            batch=batch,
            overwrite=overwrite,
        )


class Maps:
    """Encoded images to maps of attention over each whole picture, [S, S] in 8 bits.

    An image is shown as evaluation shows it: whole, its aspect kept, in a square. What the
    predictor says of the square beside the picture is cut off, and the rest stretched to S x S.

    predict: normalised images [N, 1, h, w] to densities [N, S, S]. how: `size` of the square,
    `mean` and `std` of its numbers.
    """

    def __init__(
        self,
        predict: Callable[[Tensor], Tensor],
        how: Mapping[str, Any],
        *,
        device: torch.device,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._predict, self._device, self._pool = predict, device, pool
        self._view = WholeImage(how["size"])
        self._mean, self._std = how["mean"], how["std"]

    def __call__(self, images: Sequence[tuple[bytes, str]]) -> list[Pixels | None]:
        """None for what cannot be decoded. Raises ValueError for a map that is not finite."""
        shown = list(self._pool.map(self._shown, images))
        known = [each for each in shown if each is not None]
        if not known:
            return [None] * len(shown)
        views = torch.from_numpy(np.stack([view for view, _ in known]))[:, None]
        numbers = normalise(views.to(self._device), mean=self._mean, std=self._std)
        sizes = torch.tensor([size for _, size in known])
        found = iter(_eight_bits(of_picture(self._predict(numbers).cpu(), sizes)))
        return [None if each is None else next(found) for each in shown]

    def _shown(self, image: tuple[bytes, str]) -> tuple[Pixels, tuple[int, int]] | None:
        """[h, w] greys of the square, and the picture's height and width."""
        try:
            pixels = decode(*image)
        except DecodeError:
            return None
        zero = np.zeros(1, np.int64)
        size = np.array([pixels.shape])
        drawn = self._view.draw(size, seed=0, epochs=zero, units=zero, view=0)
        view = np.empty(self._view.shape, np.uint8)
        render_cpu(pixels, drawn, 0, view)
        return view, (pixels.shape[0], pixels.shape[1])


def of_picture(map_NSS: Tensor, sizes_N2: Tensor) -> Tensor:
    """[N, S, S] over pictures of a height and width, of maps over squares they lie centred in.

    Bilinear between the centres of cells.
    """
    share_N2 = sizes_N2 / sizes_N2.amax(1, keepdim=True)
    # affine_grid has x before y
    onto_N23 = torch.nn.functional.pad(torch.diag_embed(share_N2.flip(1)), (0, 1))
    map_N1SS = map_NSS[:, None]
    grid = affine_grid(onto_N23, list(map_N1SS.shape), align_corners=False)
    return grid_sample(map_N1SS, grid, padding_mode="border", align_corners=False)[:, 0]


def _eight_bits(map_NSS: Tensor) -> list[Pixels]:
    if not map_NSS.isfinite().all():
        raise ValueError("annotate: the predictor's maps are not finite: its weights are damaged")
    peak_N11 = map_NSS.amax((1, 2), keepdim=True).clamp_min(torch.finfo(map_NSS.dtype).tiny)
    return list((map_NSS / peak_N11 * 255.0).round().to(torch.uint8).numpy())


def _load(folder: Path) -> tuple[GazePredictor, dict[str, Any]]:
    """The predictor of a checkpoint, with its weights, and how images are shown to it."""

    def weights(key: str, size: torch.Size, dtype: torch.dtype) -> Tensor | None:
        return torch.empty(size, dtype=dtype) if key.startswith("state_dict.") else None

    saved = checkpoints.read(folder, place=weights)
    kind, wanted = saved.get("objective"), GazePredictor.__name__
    if kind != wanted:
        raise ValueError(f"annotate: {folder} is of {kind}, not of {wanted}")
    if missing := {CONFIG_ENTRY, "gaze"} - saved.keys():
        raise ValueError(
            f"annotate: {folder} has no {' and no '.join(sorted(missing))}: "
            "it was not written by `lightning-rad fit`"
        )
    predictor = _built(saved[CONFIG_ENTRY]["init_args"], folder)
    predictor.load_state_dict(saved["state_dict"])
    return predictor, saved["gaze"]


def _built(config: Mapping[str, Any], folder: Path) -> GazePredictor:
    """The objective of a config, but for what only training takes."""
    encoder = config["encoder"]
    start = {"init_args": encoder.get("init_args", {}) | {"init_from": None}}
    descent = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.0}}
    given = {**config, "encoder": encoder | start, "optimizer": descent, "schedule": None}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(GazePredictor, "model")
    try:
        made: GazePredictor = parser.instantiate(parser.parse_object({"model": given})).model
    except ArgumentError as error:
        said = " ".join(str(error).split())[:300]
        raise ValueError(f"annotate: {folder}: its config does not fit: {said}") from None
    return made


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"annotate.device: '{name}': {str(error).partition(chr(10))[0]}") from None
    return torch.device(name)
