"""C2L: images and representations are mixed alike, and a mixture finds its mixture."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from torch import Tensor

from lightning_rad.collectives import gather_detached, rank, world_size
from lightning_rad.kernels.choice import Backend
from lightning_rad.kernels.unit_rows import unit_rows
from lightning_rad.losses.info_nce import info_nce
from lightning_rad.losses.nce import nce, nce_log_partition
from lightning_rad.nn.encoders import Encoder
from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.nn.momentum_twin import MomentumTwin
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.base import (
    Embeddings,
    Objective,
    OptimizerFactory,
    ScheduleFactory,
    embed_views,
)
from lightning_rad.objectives.requirements import (
    require_room,
    require_temperature,
    tell_unshuffled,
)
from lightning_rad.randomness import hash64
from lightning_rad.schema import ViewBatch


@dataclass(frozen=True)
class Contrast:
    """How a query is compared with its key and the queue.

    Args:
        temperature: Divides the cosine similarities; at least 0.01.
        backend: How either is computed; `reference` is the dense definition.
        nce_images: By default InfoNCE. The number of images pretrained on: noise-contrastive
            estimation instead, which needs it.
    """

    temperature: float = 0.07
    backend: Backend = "auto"
    nce_images: int | None = None

    def __post_init__(self) -> None:
        require_temperature(self.temperature)
        if self.nce_images is not None and self.nce_images < 1:
            raise ValueError(f"contrast.nce_images must be at least 1, got {self.nce_images}")


@final
class C2L(Objective):
    """Comparing to Learn (arXiv:2007.07423, MICCAI 2020).

    Follows `train_C2L` and `MemoryC2L` of funnyzhou/C2L_MICCAI2020. View 0 goes to the student,
    view 1 to the twin. Batch mixup: both views are mixed with one lambda and one permutation.
    Feature mixup: the twin's raw embeddings are mixed with the same, then normalised. Three terms
    of equal weight: view against key, mixed view against the key of the mixed view, mixed view
    against the mixed key. One queue serves all three and takes the keys of each before the next
    looks at it, so that it moves by 3 B a step; this is why accumulation is refused.

    Differences: InfoNCE is the default, for the code's NCE stops at an undefined name (it is here
    with the eps of its ancestor CMC, and the constant Z in floating point); the queue's pointer is
    in the checkpoint; lambda is a function of (seed, step); a row's partner is drawn within
    `partners` consecutive rows, not in the whole batch, so that no image changes ranks and the
    same pairs are mixed on any number of ranks.

    Args:
        encoder: The network that is pretrained.
        projector: Head behind the encoder; one linear layer in the paper.
        queue: The keys compared with; its width is the projector's.
        contrast: Temperature, and whether NCE takes the place of InfoNCE.
        optimizer: Optimiser class and its arguments but for the parameters.
        schedule: Learning-rate schedule class and its arguments.
        momentum: The part of itself the twin keeps at each step.
        partners: Consecutive rows that are mixed with one another; divides a rank's rows.
        seed: Seed of mixing, ShuffleBN and what is random inside the modules.
    """

    most_views: ClassVar[int | None] = 2
    accumulates: ClassVar[bool] = False
    embeds_apart: ClassVar[bool] = False

    log_partition: Tensor

    def __init__(
        self,
        encoder: Encoder,
        *,
        projector: Callable[[int], Projector],
        queue: Callable[[int], FeatureQueue],
        optimizer: OptimizerFactory,
        contrast: Contrast = Contrast(),
        schedule: ScheduleFactory | None = None,
        momentum: float = 0.999,
        partners: int = 16,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, optimizer=optimizer, schedule=schedule, seed=seed)
        if partners < 2:
            raise ValueError(f"partners must be at least 2, got {partners}")
        self.partners = partners
        self.contrast = contrast
        self.projector = projector(encoder.out_features)
        self.twin = MomentumTwin(self.encoder, self.projector, momentum=momentum)
        self.queue = queue(self.projector.out_features)
        # of NCE: log Z, which the first batch sets
        self.register_buffer("log_partition", torch.zeros(()))

    def require(self, data: Any) -> None:
        """Refuse also a queue that a step would overrun and ranks that partners do not divide."""
        super().require(data)
        require_room(self.queue, 3 * data.global_batch)
        if (own := data.global_batch // self.trainer.world_size) % self.partners:
            raise ValueError(
                f"partners: {self.partners} does not divide the {own} rows of a rank; "
                "set model.init_args.partners to a number that does"
            )

    def on_fit_start(self) -> None:
        """Begin with nothing staged, and say where ShuffleBN cannot work."""
        self.queue.drop()
        tell_unshuffled(self.twin)

    def embed(self, batch: ViewBatch) -> Embeddings:
        """Queries, keys, both of the mixed views, and the mixture of keys: raw, [1, B, D] each."""
        rows = len(batch.unit)
        share, partner_B = self.mixing(self.global_step, rank() * rows, rows)
        partner_B = partner_B.to(batch.views.device, non_blocking=True)
        order_M = self.shuffle_order(rows * world_size())

        def mixed(x_B: Tensor) -> Tensor:
            return share * x_B + (1 - share) * x_B[partner_B]

        view, other = batch.views
        key_BD = self.twin.shuffled(other, order_M)
        return {
            "query": embed_views(view[None], self.encoder, self.projector),
            "key": key_BD[None],
            "mixed_query": embed_views(mixed(view)[None], self.encoder, self.projector),
            "mixed_key": self.twin.shuffled(mixed(other), order_M)[None],
            "key_mixture": mixed(key_BD)[None],
        }

    def terms(self, embeddings: Embeddings, batch: ViewBatch) -> dict[str, Tensor]:
        """The three comparisons, a third of each, with the queue moving on between them."""
        terms = {}
        if (images := self.contrast.nce_images) is not None and self.untrained:
            key_BD = unit_rows(embeddings["key"][0])
            self.log_partition = self._estimate_partition(embeddings["query"][0], key_BD, images)
        for name, query, key in (
            ("view", "query", "key"),
            ("mixed_view", "mixed_query", "mixed_key"),
            ("mixture", "mixed_query", "key_mixture"),
        ):
            key_BD = unit_rows(embeddings[key][0])
            terms[name] = self._compare(embeddings[query][0], key_BD, self.queue.upcoming()) / 3
            self.queue.stage(gather_detached(key_BD))
        return terms

    def after_step(self, taken: bool) -> None:
        """The twin follows and the new keys replace the oldest."""
        if taken:
            self.twin.follow(self.encoder, self.projector)
            self.queue.advance()
        else:
            self.queue.drop()

    def mixing(self, step: int, first: int, rows: int) -> tuple[float, Tensor]:
        """Lambda, at least 1/2, and the partner of each of a rank's rows, [rows] int64.

        Lambda is max(u, 1 - u) with u uniform, which is Beta(1, 1). first: position of the rank's
        first row in the global batch.
        """
        u = float(hash64("lambda", self._seed, step) >> np.uint64(11)) * 2.0**-53
        rank_keys = hash64("partner", self._seed, step, np.arange(first, first + rows))
        within = np.argsort(rank_keys.reshape(-1, self.partners), axis=1)
        partner = within + np.arange(0, rows, self.partners)[:, None]
        return max(u, 1 - u), torch.from_numpy(partner.reshape(-1))

    def _compare(self, query_BD: Tensor, key_BD: Tensor, keys_KD: Tensor) -> Tensor:
        temperature, images = self.contrast.temperature, self.contrast.nce_images
        if images is None:
            backend = self.contrast.backend
            return info_nce(query_BD, key_BD, keys_KD, temperature=temperature, backend=backend)
        return nce(
            query_BD,
            key_BD,
            keys_KD,
            temperature=temperature,
            log_partition=self.log_partition,
            images=images,
            backend=self.contrast.backend,
        )

    def _estimate_partition(self, query_BD: Tensor, key_BD: Tensor, images: int) -> Tensor:
        """[] log Z of the first comparison, over all ranks."""
        here = nce_log_partition(
            query_BD,
            key_BD,
            self.queue.keys_KD,
            temperature=self.contrast.temperature,
            images=images,
        )
        return gather_detached(here[None]).logsumexp(0) - math.log(world_size())
