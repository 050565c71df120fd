"""What the two sides of a knowledge contrast are, and how they are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lightning_rad.collectives import Exchange
from lightning_rad.kernels.choice import Backend
from lightning_rad.modalities.evidence import FindingReading
from lightning_rad.modalities.radiomics import Bins
from lightning_rad.nn.projector import Projector
from lightning_rad.nn.radiomic_encoder import RadiomicEncoder
from lightning_rad.objectives.requirements import require_temperature

Origin = Literal["heat", "annotated", "central"]


@dataclass(frozen=True)
class FindingSide:
    """What is known of images, and what it is learned with.

    Args:
        reading: Names of the findings, and of whose labels and boxes.
        alpha: Weight of present findings in the focal loss, 0 to 1; absent ones have the rest.
        gamma: How much findings that are told well count less; 0 is the cross entropy.
        weight: Of the focal loss in the sum, 0 to 1.
    """

    reading: FindingReading
    alpha: float = 0.25
    gamma: float = 2.0
    weight: float = 0.7

    def __post_init__(self) -> None:
        _require_share("findings.alpha", self.alpha)
        _require_share("findings.weight", self.weight)
        if not 0 <= self.gamma < float("inf"):
            raise ValueError(f"findings.gamma must be at least 0, got {self.gamma}")


@dataclass(frozen=True)
class Feedback:
    """How what the encoder has learned chooses the regions of the next step.

    Args:
        every: Optimiser steps from one with radiomics to the next. On the others the contrast is
            left out: in a stream an image does not come again soon, so it has no older region.
        start: The first step with radiomics.
        threshold: Heat, from 0 to 1 within an image, from which a region is hot.
        regions: heat: an annotated box where there is one, else that of the heat map; annotated:
            without a box a fixed one, as of an empty map; central: the fixed one for all images,
            which cuts the loop and is its control.
    """

    every: int = 1
    start: int = 0
    threshold: float = 0.5
    regions: Origin = "heat"

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"feedback.every must be at least 1, got {self.every}")
        if self.start < 0:
            raise ValueError(f"feedback.start must be at least 0, got {self.start}")
        if not 0 < self.threshold < 1:
            raise ValueError(
                f"feedback.threshold must lie between 0 and 1, both excluded, got {self.threshold}"
            )
        if self.regions not in get_args(Origin):
            raise ValueError(
                f"feedback.regions: '{self.regions}' is not one of {list(get_args(Origin))}"
            )

    def takes(self, step: int) -> bool:
        """Whether an optimiser step, from 0 on, has radiomics."""
        return step >= self.start and (step - self.start) % self.every == 0


@dataclass(frozen=True)
class RadiomicSide:
    """What stands on the side of the radiomic features.

    Args:
        encoder: What reads them; gets their number.
        projector: Head behind it, as wide at its end as that of the images.
        bins: How greys become levels.
        feedback: Where regions come from, and how often.
    """

    encoder: Callable[[int], RadiomicEncoder]
    projector: Callable[[int], Projector]
    bins: Bins = Bins()  # noqa: RUF009 - frozen
    feedback: Feedback = Feedback()


@dataclass(frozen=True)
class KnowledgePairs:
    """How images and the radiomics of their regions are compared.

    Args:
        weight: Of the contrast in the sum, 0 to 1; at 0 there are no radiomics, and what is left
            is the classifier alone.
        temperature: Divides the cosine similarities; at least 0.01. VITA-Group/CheXT has 0.5, and
            0.05 in its stage without labels.
        backend: How NT-Xent is computed; `reference` allows any batch size.
        exchange: How ranks see each other's rows, `gather` or `ring` (see SimCLR).
    """

    weight: float = 0.3
    temperature: float = 0.5
    backend: Backend = "auto"
    exchange: Exchange = "gather"

    def __post_init__(self) -> None:
        _require_share("contrast.weight", self.weight)
        require_temperature(self.temperature)


def require_a_term(findings: FindingSide, contrast: KnowledgePairs) -> None:
    """Raise ValueError where nothing would be learned."""
    if findings.weight == 0 == contrast.weight:
        raise ValueError(
            "findings.weight and contrast.weight are both 0: nothing would be learned; "
            "set one of them above 0"
        )


def require_one_width(projector: Projector, other: Projector) -> None:
    """Raise ValueError unless images and radiomics end as vectors of one width."""
    if projector.out_features != other.out_features:
        raise ValueError(
            f"radiomic.projector.out_features is {other.out_features}, projector.out_features "
            f"{projector.out_features}: images and radiomics are compared at one width"
        )


def require_wide_statistics(name: str, precision: str) -> None:
    """Raise ValueError for running statistics in 16 bits, which are too few for their sums."""
    if precision in ("bf16-true", "16-true"):
        raise ValueError(
            f"{name}: trainer.precision {precision} would keep the statistics of radiomics in 16 "
            f"bits; set {precision.replace('true', 'mixed')}"
        )


def require_same_findings(saved: Sequence[str] | None, names: Sequence[str]) -> None:
    """Raise ValueError where weights were trained for other findings than this run's."""
    if saved is not None and list(saved) != list(names):
        raise ValueError(
            f"the checkpoint was trained with findings {list(saved)}, this run has {list(names)}: "
            "set model.init_args.findings.reading.names to those, in their order"
        )


def _require_share(key: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{key} must lie in [0, 1], got {value}")
