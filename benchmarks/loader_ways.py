"""Loaders side by side: each gives batches of two views of each picture of one set.

Others' batches are [32, 2, 1, 224, 224] of float32, as torchvision's ToTensor makes them, or of
uint8; ours are [2, 32, 1, 224, 224] of uint8, which the device turns into numbers.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torchvision.transforms as tv
import webdataset
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder

from benchmarks.loader_sets import Made
from lightning_rad.data.asked import Asked, Share
from lightning_rad.data.planning import plan_stream
from lightning_rad.data.settings import Loading, Shuffle
from lightning_rad.data.views.blur import Blur
from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.intensity import Intensity
from lightning_rad.data.views.noise import Noise
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.manifest import load_manifest

BATCH = 32
SIZE = 224
SCALE, RATIO = (0.3, 1.0), (0.8, 1.25)

Batches = Callable[[], Iterator[Tensor]]
"""Goes through the set once."""
Ways = dict[str, Batches | str]
"""By name; in place of one that is not here, the reason."""


def our_view(kind: str) -> RandomView:
    """crop: and mirror. full: exposure and blur too. default: as configs/view/two_view.yaml."""
    crop = Crop(SCALE, RATIO, rotation=0.0, flip=0.5)
    if kind == "crop":
        return RandomView(SIZE, crop=crop)
    if kind == "full":
        return RandomView(SIZE, crop=crop, intensity=Intensity(), blur=Blur())
    return RandomView(SIZE, crop=Crop(), intensity=Intensity(), blur=Blur(), noise=Noise())


def ours(shards: Path, kind: str, images: int, threads: int) -> Batches:
    """The stream of a fit, on the CPU alone; it goes on where it was."""
    planned = plan_stream(
        {str(shards): load_manifest(shards)},
        {str(shards): 1.0},
        [our_view(kind)] * 2,
        Share(0, 1),
        unit="image",
        global_batch=BATCH,
        shuffle=Shuffle(groups=BATCH),
        loading=Loading(threads=threads, render="cpu"),
        asked=Asked(),
    )
    stream = planned.stream.batches((0,) * len(planned.stream.parts))
    return lambda: (batch.pixels for batch in islice(stream, images // BATCH))


class Twice:
    """Two views by torchvision, its random numbers drawn as they come."""

    def __init__(self, kind: str, *, numbers: bool = True, antialias: bool = True) -> None:
        crop = tv.RandomResizedCrop(SIZE, SCALE, RATIO, antialias=antialias)
        steps: list[Any] = [crop, tv.RandomHorizontalFlip()]
        if kind == "full":
            steps.append(tv.RandomApply([tv.ColorJitter(0.1, 0.25)], 0.8))
            steps.append(tv.RandomApply([PillowBlur(0.1, 1.5)], 0.5))
        # without antialiasing torchvision resizes tensors alone
        tensor = tv.ToTensor() if numbers else tv.PILToTensor()
        self._steps = tv.Compose([*steps, tensor] if antialias else [tensor, *steps])

    def __call__(self, picture: Image.Image) -> Tensor:
        return torch.stack([self._steps(picture), self._steps(picture)])

    def decoded(self, data: bytes) -> Tensor:
        return self(Image.open(io.BytesIO(data)).convert("L"))


class PillowBlur:
    """As MoCo v2 blurs."""

    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = low, high

    def __call__(self, picture: Image.Image) -> Image.Image:
        sigma = self._low + (self._high - self._low) * float(torch.rand(()))
        return picture.filter(ImageFilter.GaussianBlur(sigma))


def webdatasets(shards: Path, twice: Twice, workers: int) -> Batches:
    urls = [str(tar) for tar in sorted(shards.glob("*.tar"))]
    stages = webdataset.WebDataset(urls, shardshuffle=len(urls), nodesplitter=None).shuffle(100)
    stages = stages.to_tuple("00.jpg").map(lambda sample: twice.decoded(sample[0]))
    loader = DataLoader(stages, batch_size=BATCH, num_workers=workers)
    return lambda: iter(loader)


def folders(folder: Path, twice: Twice, workers: int) -> Batches:
    def grey(path: str) -> Image.Image:
        with open(path, "rb") as file:
            return Image.open(file).convert("L")

    files = ImageFolder(str(folder), transform=twice, loader=grey)
    loader = DataLoader(files, batch_size=BATCH, shuffle=True, num_workers=workers)
    return lambda: (views for views, _ in loader)


class Indexed(Dataset[Tensor]):
    """A set of bytes by number, such as litdata's and mosaic's are."""

    def __init__(self, rows: Any, twice: Twice) -> None:
        self._rows, self._twice = rows, twice

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Tensor:
        return self._twice.decoded(self._rows[row]["image"])


def lit(folder: Path, twice: Twice, workers: int) -> Batches:
    from litdata import StreamingDataLoader, StreamingDataset  # noqa: PLC0415 - may be missing

    rows = StreamingDataset(
        str(folder), shuffle=True, transform=lambda r: twice.decoded(r["image"])
    )
    loader = StreamingDataLoader(rows, batch_size=BATCH, num_workers=workers)
    return lambda: iter(loader)


def mosaic(folder: Path, twice: Twice, workers: int) -> Batches:
    from streaming import StreamingDataset  # noqa: PLC0415 - may be missing

    rows = StreamingDataset(local=str(folder), batch_size=BATCH, shuffle=False)
    loader = DataLoader(Indexed(rows, twice), BATCH, shuffle=True, num_workers=workers)
    return lambda: iter(loader)


def of(made: Made, way: Callable[[Path], Batches]) -> Batches | str:
    """The way through a set that is there, or the reason why there is none."""
    return made.why if made.folder is None else way(made.folder)
