"""Every objective against the straight-line transcription of its source, step by step.

Both start from the same numbers, see the same batches and descend with plain SGD in float64; after
each step all loss terms, parameters, running statistics, queue rows and pointers agree to 1e-10.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.byol import BYOL
from lightning_rad.objectives.c2l import C2L, Contrast
from lightning_rad.objectives.micle import MICLe
from lightning_rad.objectives.moco import MoCo
from lightning_rad.objectives.moco_v3 import MoCoV3
from lightning_rad.schema import ViewBatch
from tests.gloo import run_on_ranks
from tests.objectives.fixed import Snapshot, fit_on_this_rank, fit_steps, random_batches
from tests.objectives.small_nets import Norm, SmallEncoder
from tests.objectives.transcribed.byol import byol_steps
from tests.objectives.transcribed.c2l import c2l_steps
from tests.objectives.transcribed.micle import micle_steps
from tests.objectives.transcribed.moco import moco_steps
from tests.objectives.transcribed.moco_v3 import moco_v3_steps
from tests.objectives.transcribed.record import Step

STEPS, ROWS, LR, MOMENTUM, TEMPERATURE = 4, 8, 0.1, 0.9, 0.2
PATIENTS = [[7, 7, 0, 3, 0, 5, 3, 7], [1, 2, 3, 4, 5, 6, 7, 8], [0] * 8, [9] * 4 + [8] * 4]

Made = Callable[[Norm], tuple[Any, list[Step]]]
"""An objective as it starts, and what it should come to."""


def batches() -> list[ViewBatch]:
    made = random_batches(STEPS, rows=ROWS)
    for batch, patients_B in zip(made, PATIENTS, strict=True):
        batch.patient = torch.tensor(patients_B)
    return made


def pixels() -> list[Tensor]:
    return [batch.views for batch in batches()]


def parts(norm: Norm) -> dict[str, Any]:
    """What all objectives are made of here; a rate at which every step shows."""
    torch.manual_seed(0)
    return {
        "encoder": SmallEncoder(norm),
        "projector": lambda width: Projector(width, out_features=8, norm=norm),
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=LR),
    }


def student(objective: Any) -> nn.Sequential:
    return nn.Sequential(objective.encoder, objective.projector)


def moco(norm: Norm) -> tuple[MoCo, list[Step]]:
    """The fourth step begins to overwrite a queue of three batches."""
    objective = MoCo(
        **parts(norm),
        queue=lambda width: FeatureQueue(width, length=3 * ROWS),
        momentum=MOMENTUM,
        temperature=TEMPERATURE,
    ).double()
    return objective, moco_steps(
        student(objective),
        pixels(),
        queue_KD=objective.queue.keys_KD,
        temperature=TEMPERATURE,
        momentum=MOMENTUM,
        lr=LR,
    )


def moco_v3(norm: Norm) -> tuple[MoCoV3, list[Step]]:
    objective = MoCoV3(
        **parts(norm),
        predictor=lambda width: Projector(width, out_features=8, norm=norm, ending="plain"),
        momentum=MOMENTUM,
        temperature=TEMPERATURE,
    ).double()
    return objective, moco_v3_steps(
        student(objective),
        objective.predictor,
        pixels(),
        temperature=TEMPERATURE,
        momentum=MOMENTUM,
        total=STEPS,
        lr=LR,
    )


def byol(norm: Norm) -> tuple[BYOL, list[Step]]:
    objective = BYOL(
        **parts(norm),
        predictor=lambda width: Projector(width, out_features=8, norm=norm, ending="linear"),
        momentum=MOMENTUM,
    ).double()
    return objective, byol_steps(
        student(objective),
        objective.predictor,
        pixels(),
        momentum=MOMENTUM,
        total=STEPS,
        lr=LR,
    )


def c2l(norm: Norm, *, length: int, images: int | None) -> tuple[C2L, list[Step]]:
    """A queue of four batches begins anew in the midst of a step. images: how many NCE is for."""
    objective = C2L(
        **parts(norm),
        queue=lambda width: FeatureQueue(width, length=length, init="uniform"),
        contrast=Contrast(temperature=TEMPERATURE, nce_images=images),
        momentum=MOMENTUM,
        partners=4,
    ).double()
    drawn = [objective.mixing(step, 0, ROWS) for step in range(STEPS)]
    return objective, c2l_steps(
        student(objective),
        pixels(),
        lambdas=[lam for lam, _ in drawn],
        permutations=[permutation for _, permutation in drawn],
        queue_KD=objective.queue.keys_KD,
        temperature=TEMPERATURE,
        momentum=MOMENTUM,
        lr=LR,
        nce_data=images,
    )


def micle(norm: Norm, *, faithful: bool) -> tuple[MICLe, list[Step]]:
    objective = MICLe(
        **parts(norm), temperature=TEMPERATURE, backend="reference", faithful=faithful
    ).double()
    return objective, micle_steps(
        student(objective),
        pixels(),
        patients=[batch.patient for batch in batches()],
        faithful=faithful,
        temperature=TEMPERATURE,
        lr=LR,
    )


METHODS: dict[str, Made] = {
    "moco": moco,
    "moco_v3": moco_v3,
    "byol": byol,
    "c2l": partial(c2l, length=3 * ROWS, images=None),
    "c2l-long-queue": partial(c2l, length=4 * ROWS, images=None),
    "c2l-nce": partial(c2l, length=3 * ROWS, images=200),
    "c2l-nce-long-queue": partial(c2l, length=4 * ROWS, images=200),
    "micle": partial(micle, faithful=False),
    "micle-faithful": partial(micle, faithful=True),
}


def same(got: Any, wanted: Any) -> None:
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)


def compare(step: Snapshot, wanted: Step) -> None:
    """What the transcription has, the objective must have, and no more."""
    same(step.chain("encoder", "projector"), wanted.student)
    same(step.under("predictor"), wanted.predictor)
    same(step.under("twin.net"), wanted.twin)
    queue = {}
    if wanted.queue_KD is not None:
        queue = {"keys_KD": wanted.queue_KD, "pointer": torch.tensor(wanted.pointer)}
    same(step.under("queue"), queue)


@pytest.mark.parametrize("norm", ["batch", "none"])
@pytest.mark.parametrize("method", METHODS)
def test_every_step_is_that_of_the_source_written_out(method: str, norm: Norm) -> None:
    objective, expected = METHODS[method](norm)
    steps = fit_steps(objective, batches(), unit="study")
    assert len(steps) == len(expected) == STEPS
    for step, wanted in zip(steps, expected, strict=True):
        same(list(step.terms.values()), list(wanted.terms.values()))
        compare(step, wanted)


def made(method: str) -> Any:
    objective, _ = METHODS[method]("none")
    return objective


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_take_the_steps_of_the_source_on_the_whole_batch(method: str) -> None:
    """Without batch statistics, which are each rank's own."""
    _, expected = METHODS[method]("none")
    for steps in run_on_ranks(fit_on_this_rank, 2, partial(made, method), batches(), "study"):
        assert len(steps) == STEPS
        for step, wanted in zip(steps, expected, strict=True):
            compare(step, wanted)


@pytest.mark.parametrize("method", ["moco", "moco_v3", "byol", "c2l"])
def test_the_twin_drops_nothing_while_the_student_does(method: str) -> None:
    """As `model_ema.eval()` in train_C2L, and as MomentumTwin says of itself."""
    objective, _ = METHODS[method]("none")
    dropped: dict[str, list[bool]] = {"encoder": [], "twin.net.0": []}
    for name, calls in dropped.items():
        dropout = objective.get_submodule(f"{name}.dropout")
        dropout.p = 0.5
        dropout.register_forward_hook(
            lambda _, given, out, calls=calls: calls.append(not torch.equal(given[0], out))
        )
    fit_steps(objective, batches())
    assert all(dropped["encoder"])
    assert dropped["twin.net.0"]
    assert not any(dropped["twin.net.0"])
