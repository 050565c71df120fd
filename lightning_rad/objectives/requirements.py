"""What objectives refuse before the first step, in one line that names the key to change."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Protocol

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_rad.collectives import world_size
from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.nn.momentum_twin import MomentumTwin
from lightning_rad.nn.projector import Projector

log = logging.getLogger(__name__)


class Wants(Protocol):
    """What an objective says it needs; see `Objective`."""

    needs: ClassVar[frozenset[str]]
    least_views: ClassVar[int]
    most_views: ClassVar[int | None]
    accumulates: ClassVar[bool]
    embeds_apart: ClassVar[bool]

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]:
        """Itself and what it is made of, each with its path."""


def require_views(objective: Wants, data: Any) -> None:
    """Raise ValueError unless the data module gives the fields and views that are needed."""
    name, views = type(objective).__name__, len(data.views)
    missing = sorted(objective.needs - data.gives)
    if missing:
        raise ValueError(
            f"{name} needs the batch field(s) {missing}; the data gives {sorted(data.gives)}"
        )
    if views < objective.least_views:
        raise ValueError(
            f"{name} needs at least {objective.least_views} views of a unit; data.views has {views}"
        )
    if objective.most_views is not None and views > objective.most_views:
        raise ValueError(
            f"{name} makes use of {objective.most_views} views of a unit; data.views has {views}"
        )


def require_report_unit(objective: Wants, data: Any, *accepted: str) -> None:
    """Raise ValueError unless the data's units are of a kind that has one report."""
    if data.unit not in accepted:
        raise ValueError(
            f"{type(objective).__name__}: data.unit must be {' or '.join(accepted)}, "
            f"it is {data.unit}"
        )


def require_same_name(saved: str | None, name: str) -> None:
    """Raise ValueError where weights are of another objective; None is not known."""
    if saved not in (None, name):
        raise ValueError(
            f"the checkpoint is of {saved} and this run is {name}: --init_from starts a run from "
            "the encoder of any checkpoint"
        )


def require_same_words(saved: Mapping[str, str], digests: Mapping[str, str]) -> None:
    """Raise ValueError where weights were trained with another tokeniser than this run's.

    saved, digests: identities of tokenisers by the names of their tokens.
    """
    for name in sorted(saved.keys() | digests.keys()):
        if saved.get(name) != digests.get(name):
            raise ValueError(
                f"the checkpoint was trained with tokeniser {saved.get(name)} ({name}), this run "
                f"has {digests.get(name)}: set model.init_args.reports.tokenizer, or the text "
                "encoder's folder, to the one it was trained with"
            )


def require_image_size(encoder: nn.Module, data: Any) -> None:
    """Raise ValueError where the views are not of the one size that an encoder is built for."""
    built_for = getattr(encoder, "built_for", None)
    if built_for is not None and built_for != (size := data.views[0].size):
        raise ValueError(
            f"the encoder is built for images of {built_for} pixels, data.views have {size}: set "
            f"model.init_args.encoder.init_args.image_size to {size}, or take other views"
        )


def require_accumulation(objective: Wants, batches: int) -> None:
    """Raise ValueError for a step of several batches where the objective takes one."""
    if batches > 1 and not objective.accumulates:
        raise ValueError(
            f"{type(objective).__name__} takes one batch a step: "
            f"trainer.accumulate_grad_batches is {batches}, set it to 1"
        )


def require_embed_at_once(objective: Wants, units: int | None, own: int) -> None:
    """Raise ValueError for parts of no unit, and for what makes parts unlike the whole batch.

    That is an objective or a norm to which the other units of a batch matter. own: units of a
    rank; where they are one part they are the whole batch.
    """
    if units is None:
        return
    if units < 1:
        raise ValueError(f"embed_at_once must be at least 1 or null, got {units}")
    if units >= own:
        return
    if not objective.embeds_apart:
        raise ValueError(
            f"{type(objective).__name__} embeds the units of a batch together: embed_at_once is "
            f"{units} of a rank's {own}, set it to null"
        )
    for name, module in objective.named_modules():
        if _takes_statistics(module):
            raise ValueError(
                f"{name} takes statistics of the batch, and of parts they are others: "
                f"embed_at_once is {units} of a rank's {own}, set it to null or choose a norm of "
                "single rows (layer, group)"
            )


def _takes_statistics(module: nn.Module) -> bool:
    """Of batches: batch norms, and what keeps running statistics as they do."""
    if isinstance(module, _BatchNorm) and module.running_var is None:
        return True  # in evaluation, too
    return module.training and getattr(module, "running_var", None) is not None


def require_wide_twin(objective: nn.Module, precision: str) -> None:
    """Raise ValueError for a twin in 16 bits, which are too few for the steps by which it moves."""
    twins = [m for m in objective.modules() if isinstance(m, MomentumTwin)]
    if twins and precision in ("bf16-true", "16-true"):
        raise ValueError(
            f"{type(objective).__name__}: trainer.precision {precision} would leave its twin where "
            f"it is; set {precision.replace('true', 'mixed')}"
        )


def require_wide_numbers(objective: nn.Module, precision: str) -> None:
    """Raise ValueError for a learned temperature or bias in 16 bits, too few for their steps."""
    learned = any(p.requires_grad and not p.ndim for p in objective.parameters())
    if learned and precision in ("bf16-true", "16-true"):
        raise ValueError(
            f"{type(objective).__name__}: trainer.precision {precision} would leave its learned "
            f"temperature where it is; set {precision.replace('true', 'mixed')}, or "
            "contrast.learned to false"
        )


def require_temperature(temperature: float) -> float:
    """The temperature itself. Raises ValueError below 0.01, where float32 runs out of digits."""
    if not temperature >= 0.01:
        raise ValueError(f"temperature must be at least 0.01, got {temperature}")
    return temperature


def require_same_width(predictor: Projector, projector: Projector) -> Projector:
    """The predictor itself. Raises ValueError unless it is as wide as what it predicts."""
    if predictor.out_features != projector.out_features:
        raise ValueError(
            f"predictor.out_features is {predictor.out_features}, projector.out_features "
            f"{projector.out_features}: a prediction is as wide as its target"
        )
    return predictor


def require_room(queue: FeatureQueue, keys: int) -> None:
    """Raise ValueError where the keys of one optimiser step do not fit into the queue."""
    if keys > queue.length:
        raise ValueError(
            f"queue.length: {queue.length} is less than the {keys} keys of one optimiser step; "
            "lengthen it, or lower data.global_batch"
        )


def tell_unshuffled(twin: MomentumTwin) -> None:
    """Say where ShuffleBN cannot keep the statistics of queries and keys apart."""
    norms = [m for m in twin.modules() if isinstance(m, _BatchNorm)]
    if any(isinstance(norm, nn.SyncBatchNorm) for norm in norms):
        log.warning(
            "trainer.sync_batchnorm is on: the batch norms of queries and of keys see the same "
            "images, which ShuffleBN is there to prevent and cannot; set it to false"
        )
    elif norms and world_size() == 1:
        log.info(
            "one process: ShuffleBN has no ranks to shuffle over, and the batch norms of queries "
            "and of keys see the same images"
        )
