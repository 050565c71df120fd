"""One step changes what should change and nothing else, for every objective.

A real step of the Trainer, with batch norms, a frozen layer, and the twin's and queue's expected
places computed here from the state before.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.simclr import SimCLR
from tests.objectives.evidence import suited, views_of
from tests.objectives.fixed import fit_steps, random_batches, with_reports
from tests.objectives.knowledge import knowledge_contrast
from tests.objectives.small_nets import SmallEncoder
from tests.objectives.test_barlow_twins import barlow_twins
from tests.objectives.test_byol import byol
from tests.objectives.test_c2l import c2l
from tests.objectives.test_gaze_predictor import predictor
from tests.objectives.test_image_report import image_report
from tests.objectives.test_micle import micle
from tests.objectives.test_moco import moco
from tests.objectives.test_moco_v3 import moco_v3
from tests.objectives.test_refers import refers
from tests.objectives.test_vicreg import vicreg

ROWS = 8


def simclr() -> SimCLR:
    torch.manual_seed(0)
    return SimCLR(
        SmallEncoder("batch"),  # type: ignore[arg-type]
        projector=lambda width: Projector(width, out_features=8),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
        temperature=0.2,
    ).double()


@dataclass(frozen=True)
class Case:
    """An objective; the momentum of its first step; the keys it takes a step; its passes a step."""

    make: Callable[[], Any]
    momentum: float | None = None
    keys: int = 0
    student_passes: int = 1
    twin_passes: int = 0


CASES = {
    "simclr": Case(simclr),
    "barlow_twins": Case(lambda: barlow_twins("batch"), student_passes=2),
    "vicreg": Case(lambda: vicreg("batch"), student_passes=2),
    "micle": Case(lambda: micle("batch")),
    "moco": Case(lambda: moco("batch"), 0.9, ROWS, 1, 1),
    "moco_v3": Case(lambda: moco_v3("batch"), 0.95, 0, 2, 2),  # half of the way from 0.9 to 1
    "byol": Case(lambda: byol("batch"), 0.9, 0, 2, 2),
    "c2l": Case(lambda: c2l("batch"), 0.9, 3 * ROWS, 2, 2),
    "image_report_clip": Case(lambda: image_report("batch", "clip")),
    "image_report_convirt": Case(lambda: image_report("batch", "convirt")),
    "image_report_siglip": Case(lambda: image_report("batch", "siglip")),
    "refers": Case(lambda: refers("batch")),
    "knowledge_contrast": Case(lambda: knowledge_contrast("batch")),
    "gaze_predictor": Case(lambda: predictor(SmallEncoder("batch"))),
}


def ready(case: Case) -> Any:
    """The objective with a pointer in the middle of its queue and a convolution that rests."""
    objective = case.make()
    objective.encoder.layers[0].requires_grad_(False)
    if case.keys:
        objective.queue.pointer.fill_(objective.queue.length - 5)
    return objective


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


@pytest.fixture
def states(case: Case) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Before and after the first of two steps."""
    objective = ready(case)
    before = {name: value.clone() for name, value in objective.state_dict().items()}
    batches = with_reports(random_batches(2, rows=ROWS, views=views_of(objective)))
    first, _ = fit_steps(objective, suited(objective, batches), unit="study")
    return before, first.state


def is_buffer(name: str) -> bool:
    return name.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_every_parameter_of_the_student_moves_but_the_frozen_ones(
    case: Case, states: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    before, after = states
    learns = {name: p.requires_grad for name, p in ready(case).named_parameters()}
    student = {name for name in learns if not name.startswith("twin")}
    assert {n for n in student if not learns[n]} >= {"encoder.layers.0.weight"}
    for name in student:
        assert torch.equal(after[name], before[name]) != learns[name], name


def test_the_twin_moves_exactly_by_its_momentum_towards_the_new_student(
    case: Case, states: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    before, after = states
    twin = {name for name in after if name.startswith("twin.") and not is_buffer(name)}
    assert bool(twin) == (case.momentum is not None)
    for name in twin:
        part, rest = name.removeprefix("twin.net.").split(".", 1)
        new = after[("encoder.", "projector.")[int(part)] + rest]
        wanted = case.momentum * before[name] + (1 - case.momentum) * new
        torch.testing.assert_close(after[name], wanted, rtol=1e-7, atol=1e-9)


def test_batch_norms_of_both_count_what_they_saw_themselves(
    case: Case, states: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    before, after = states
    for name in filter(is_buffer, after):
        passes = case.twin_passes if name.startswith("twin.") else case.student_passes
        if name.endswith("num_batches_tracked"):
            assert int(after[name]) == passes, name
        else:
            assert not torch.equal(after[name], before[name]), name
        if name.startswith("twin.net.0.") and case.twin_passes and "running_mean" in name:
            student = name.replace("twin.net.0.", "encoder.")
            alike = torch.allclose(after[name], after[student])
            assert alike == (case.keys == 0)  # MoCo v3 and BYOL show both views to both


def test_the_queue_changes_where_the_pointer_stood_and_nowhere_else(
    case: Case, states: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    before, after = states
    if not case.keys:
        assert not any(name.startswith("queue") for name in after)
        return
    length, start = len(before["queue.keys_KD"]), int(before["queue.pointer"])
    moved = (before["queue.keys_KD"] != after["queue.keys_KD"]).any(1)
    places = {(start + i) % length for i in range(case.keys)}
    assert set(moved.nonzero().flatten().tolist()) == places
    assert int(after["queue.pointer"]) == (start + case.keys) % length


def test_nothing_else_has_state(
    case: Case, states: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    _, after = states
    known = ("encoder.", "projector.", "predictor.", "twin.net.0.", "twin.net.1.", "queue.")
    of_reports = ("text.", "text_projector.", "text_projection.", "fusion.", "decoder.")
    of_findings = ("classifier.", "z_score.", "radiomic_encoder.", "radiomic_projector.")
    numbers = {"log_partition", "log_scale", "bias"}
    assert {
        name for name in after if not name.startswith(known + of_reports + of_findings)
    } <= numbers
