"""An optimiser step of several micro-batches: one mean gradient, one move of the twin."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.schema import ViewBatch
from tests.objectives.evidence import suited, views_of
from tests.objectives.fixed import fit_steps, random_batches, with_reports
from tests.objectives.knowledge import knowledge_contrast
from tests.objectives.small_nets import SmallEncoder
from tests.objectives.test_barlow_twins import barlow_twins
from tests.objectives.test_byol import byol
from tests.objectives.test_gaze_predictor import predictor
from tests.objectives.test_image_report import image_report
from tests.objectives.test_micle import micle, simclr
from tests.objectives.test_moco import moco
from tests.objectives.test_moco_v3 import moco_v3
from tests.objectives.test_refers import refers
from tests.objectives.test_vicreg import vicreg

MICRO, STEPS = 3, 3
LR = 0.1  # of plain SGD, in all of these

State = dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """An objective, and the momenta of its twin in a run of three steps."""

    make: Callable[[], Any]
    momenta: tuple[float, ...] = ()


CASES = {
    "simclr": Case(lambda: simclr("batch")),
    "micle": Case(lambda: micle("batch")),
    "barlow_twins": Case(lambda: barlow_twins("batch")),
    "vicreg": Case(lambda: vicreg("batch")),
    "moco": Case(
        lambda: moco("batch", queue=lambda width: FeatureQueue(width, length=30)), (0.9, 0.9, 0.9)
    ),
    "moco_v3": Case(lambda: moco_v3("batch"), (0.925, 0.975, 1.0)),
    "byol": Case(lambda: byol("batch"), (0.9, 0.925, 0.975)),
    "image_report": Case(lambda: image_report("batch")),
    "image_report_siglip": Case(lambda: image_report("batch", "siglip")),
    "refers": Case(lambda: refers("batch")),
    "knowledge_contrast": Case(lambda: knowledge_contrast("batch")),
    "gaze_predictor": Case(lambda: predictor(SmallEncoder("batch"))),
}


class EachBatch(Callback):
    """The state after each micro-batch."""

    def __init__(self) -> None:
        self.states: list[State] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.states.append({name: x.clone() for name, x in module.state_dict().items()})


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def batches(case: Case) -> list[ViewBatch]:
    """Patients of several bags, for MICLe."""
    objective = case.make()
    given = random_batches(MICRO * STEPS, views=views_of(objective))
    given = suited(objective, with_reports(given, same=[(0, 5)]))
    for one in given:
        one.patient = torch.tensor([5, 6, 0, 5, 6, 5, 0, 7])
    return given


@pytest.fixture
def states(case: Case, batches: list[ViewBatch]) -> list[State]:
    """At the start and after each micro-batch, in a run that ends with its batches."""
    objective, watcher = case.make(), EachBatch()
    start = {name: x.clone() for name, x in objective.state_dict().items()}
    how = {"accumulate_grad_batches": MICRO, "max_steps": -1, "max_epochs": 1}
    fit_steps(objective, batches, unit="study", callbacks=[watcher], **how)
    assert len(watcher.states) == MICRO * STEPS
    return [start, *watcher.states]


def gradient(make: Callable[[], Any], states: list[State], batches: list[ViewBatch]) -> State:
    """The mean of the gradients that the batches give one by one, all from the first state.

    But for running statistics of radiomics, which take in every micro-batch before it is scored.
    """
    total: State = {}
    for given, met in zip(batches, states, strict=True):
        objective = make()
        running = {name: x for name, x in met.items() if name.startswith("z_score.")}
        objective.load_state_dict(states[0] | running)
        terms = objective.terms(objective.embed(given), given)
        torch.stack(list(terms.values())).sum().backward()
        for name, parameter in objective.named_parameters():
            if parameter.grad is not None:
                total[name] = total.get(name, 0) + parameter.grad / len(batches)
    return total


def test_a_step_is_by_the_mean_of_the_gradients_of_its_micro_batches(
    case: Case, batches: list[ViewBatch], states: list[State]
) -> None:
    for first in range(0, MICRO * STEPS, MICRO):
        before, after = states[first], states[first + MICRO]
        micro = slice(first, first + MICRO)
        mean = gradient(case.make, states[micro], batches[micro])
        assert {name for name in mean if name.startswith("encoder")}
        for name, g in mean.items():
            torch.testing.assert_close(
                after[name], before[name] - LR * g, rtol=1e-9, atol=1e-12, msg=name
            )
        assert max(float(g.abs().max()) for g in mean.values()) > 1e-3


def test_twin_and_queue_move_once_a_step_and_not_before_its_end(
    case: Case, states: list[State]
) -> None:
    parameters = [name for name, _ in case.make().named_parameters() if name.startswith("twin.")]
    assert bool(parameters) == bool(case.momenta)
    for step, momentum in enumerate(case.momenta):
        before, *within, after = states[step * MICRO : (step + 1) * MICRO + 1]
        for name in parameters:
            assert all(torch.equal(state[name], before[name]) for state in within), name
            part, rest = name.removeprefix("twin.net.").split(".", 1)
            new = after[("encoder.", "projector.")[int(part)] + rest]
            wanted = momentum * before[name] + (1 - momentum) * new
            torch.testing.assert_close(after[name], wanted, rtol=1e-7, atol=1e-9, msg=name)
        if "queue.pointer" in before:
            pointers = [int(state["queue.pointer"]) for state in (before, *within, after)]
            assert pointers == [step * 24 % 30] * MICRO + [(step + 1) * 24 % 30]
