"""Settings of the data module, grouped as the YAML groups them; each checks its own ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from lightning_rad.data.units import Images
from lightning_rad.data.views.recipe import ViewRecipe


@dataclass(frozen=True)
class Shuffle:
    """How units are ordered and what they show. A resumed run must keep all of it.

    Args:
        seed: Seed of the order, of the views and of the choice of images.
        groups: Canonical groups that share each global batch; the number of ranks divides it, and
            it divides the global batch. 64 serves 1 to 64 GPUs.
        window: Units among which a group shuffles; several shards' worth.
        separation: Least distance between two occurrences of a unit, and so the largest global
            batch; by default a third of the units, 16,384 at most.
        images: distinct: the views of a unit show different images of it, as long as it has that
            many, then start over. independent: each view shows any of them.
        flip: Probability, 0 to 1, that a unit is mirrored in a data epoch: all its views together,
            and the words of side in its report.
    """

    seed: int = 0
    groups: int = 64
    window: int = 4096
    separation: int | None = None
    images: Images = "distinct"
    flip: float = 0.0

    def __post_init__(self) -> None:
        if self.groups < 1:
            raise ValueError(f"data.shuffle.groups must be at least 1, got {self.groups}")
        if self.window < 1:
            raise ValueError(f"data.shuffle.window must be at least 1, got {self.window}")
        if self.images not in get_args(Images):
            choices = " or ".join(get_args(Images))
            raise ValueError(f"data.shuffle.images must be {choices}, got '{self.images}'")
        if not 0 <= self.flip <= 1:
            raise ValueError(f"data.shuffle.flip must lie in [0, 1], got {self.flip}")


@dataclass(frozen=True)
class Loading:
    """How batches are made; nothing here changes what they hold.

    Args:
        threads: Worker threads of a rank; 0 decodes in the training thread.
        ahead: Batches prepared in advance.
        render: Where views are rendered: cpu (in the threads), device, or auto: on the device
            where it is a GPU. The two differ by one grey level at most.
        max_bad_fraction: Share of unreadable samples above which the run stops.
    """

    threads: int = 2
    ahead: int = 4
    render: Literal["auto", "cpu", "device"] = "auto"
    max_bad_fraction: float = 0.01

    def __post_init__(self) -> None:
        if self.threads < 0:
            raise ValueError(f"data.loading.threads must not be negative, got {self.threads}")
        if self.ahead < 1:
            raise ValueError(f"data.loading.ahead must be at least 1, got {self.ahead}")
        if not 0 <= self.max_bad_fraction <= 1:
            raise ValueError(
                f"data.loading.max_bad_fraction must lie in [0, 1], got {self.max_bad_fraction}"
            )


@dataclass(frozen=True)
class Evaluation:
    """Which labelled images, and studies with a report, `validate` and `test` look at.

    Args:
        view: How an image is shown; the same size as the views of training.
        manifest: Manifest of the labelled shards; by default the (first) one trained on.
        batch: Images of a batch on each rank; studies are as many as have so many views.
        fit_images: At most so many of the train split fit the probes; chosen by hash.
        score_images: At most so many of the val (test) split are scored; all by default.
        studies: At most so many studies of that split, chosen by hash, are compared with their
            reports, where the objective reads reports; 0 is none, null all.
    """

    view: ViewRecipe
    manifest: str | None = None
    batch: int = 256
    fit_images: int = 20_000
    score_images: int | None = None
    studies: int | None = 1000

    def __post_init__(self) -> None:
        for name in ("batch", "fit_images", "score_images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"data.evaluation.{name} must be at least 1, got {value}")
        if self.studies is not None and self.studies < 0:
            raise ValueError(
                f"data.evaluation.studies must be at least 0 or null, got {self.studies}"
            )


@dataclass(frozen=True)
class Normalise:
    """How grey levels become numbers: (grey / 255 - mean) / std.

    Args:
        mean: Grey that becomes 0, as a fraction of white.
        std: Greys per unit, as a fraction of white.
    """

    mean: float = 0.5
    std: float = 0.25

    def __post_init__(self) -> None:
        if self.std <= 0:
            raise ValueError(f"data.normalise.std must be positive, got {self.std}")
