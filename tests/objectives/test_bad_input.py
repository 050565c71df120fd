"""What an objective cannot work with is refused before the first step, or has a defined answer.

Bags of one image and of a thousand are in test_micle.py, queues that wrap in test_moco.py.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn

from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.c2l import Contrast
from tests.objectives.fixed import FixedBatches, fit_steps, random_batches
from tests.objectives.test_byol import byol
from tests.objectives.test_c2l import c2l
from tests.objectives.test_micle import micle, simclr
from tests.objectives.test_moco import moco
from tests.objectives.test_moco_v3 import moco_v3
from tests.objectives.test_refers import batch as reports
from tests.objectives.test_refers import refers

Make = Callable[..., Any]
ALL = pytest.mark.parametrize("make", [moco, moco_v3, byol, c2l, micle])
WITH_TWIN = pytest.mark.parametrize("make", [moco, moco_v3, byol, c2l])


def refusal(objective: Any, **how: Any) -> str:
    """The one line that refuses a fit; nothing was computed before."""
    called: list[int] = []
    objective.encoder.register_forward_pre_hook(lambda *_: called.append(1))
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the caller reads the message
        fit_steps(objective, **({"batches": random_batches(1), "unit": "study"} | how))
    assert called == []
    assert "\n" not in str(refused.value)
    return str(refused.value)


@ALL
def test_a_field_that_the_data_does_not_give_is_named_with_the_objective(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = make()
    for field in sorted(objective.needs):
        monkeypatch.setattr(FixedBatches, "gives", frozenset(objective.needs - {field}))
        said = refusal(make())
        assert said.startswith(f"{type(objective).__name__} needs the batch field(s) ['{field}']")
        assert "the data gives" in said


@ALL
def test_one_view_is_too_few(make: Make) -> None:
    name = type(make()).__name__
    said = refusal(make(), batches=random_batches(1, views=1))
    assert said == f"{name} needs at least 2 views of a unit; data.views has 1"


@WITH_TWIN
def test_a_third_view_is_not_dropped_in_silence(make: Make) -> None:
    name = type(make()).__name__
    said = refusal(make(), batches=random_batches(1, views=3))
    assert said == f"{name} makes use of 2 views of a unit; data.views has 3"


def test_micle_takes_a_third_view() -> None:
    [step] = fit_steps(micle(), random_batches(1, views=3), unit="study")
    assert torch.isfinite(torch.tensor(step.terms["nt_xent"]))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            {"batches": random_batches(1)},
            "REFERS needs at least 3 views of a unit; data.views has 2",
        ),
        (
            {"batches": random_batches(1, views=4)},
            "REFERS makes use of 3 views of a unit; data.views has 4",
        ),
        ({"unit": "image"}, "REFERS: data.unit must be study, it is image"),
        ({"unit": "patient"}, "REFERS: data.unit must be study, it is patient"),
    ],
)
def test_refers_takes_three_views_of_studies(how: dict[str, Any], said: str) -> None:
    assert refusal(refers(), **({"batches": [reports()]} | how)) == said


def test_weights_of_another_tokeniser_are_refused_by_its_digest() -> None:
    objective, saved = refers(), {"objective": "REFERS", "words": {"caption": "0", "text": "0"}}
    digest = objective.reading.digests["caption"]
    said = rf"trained with tokeniser 0 \(caption\), this run has {digest}: set model\.init_args"
    with pytest.raises(ValueError, match=said):
        objective.on_load_checkpoint(saved)


@WITH_TWIN
@pytest.mark.parametrize("momentum", [-0.001, 1.001, float("nan")])
def test_a_twin_momentum_outside_0_to_1_is_refused_by_name(make: Make, momentum: float) -> None:
    with pytest.raises(ValueError, match=r"^momentum: .* of the twin is not in \[0, 1\]$"):
        make(momentum=momentum)


@WITH_TWIN
@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_ends_of_its_range_are_allowed(make: Make, momentum: float) -> None:
    [step] = fit_steps(make(momentum=momentum), random_batches(1))
    start = make().state_dict()["twin.net.0.layers.0.weight"]
    twin = step.state["twin.net.0.layers.0.weight"]
    if momentum == 1:
        assert torch.equal(twin, start)
    elif make is not moco_v3:  # whose momentum is 1 after the last step
        torch.testing.assert_close(twin, step.state["encoder.layers.0.weight"])


@pytest.mark.parametrize("make", [moco_v3, byol])
def test_a_predictor_of_another_width_than_its_target_is_refused(make: Make) -> None:
    said = r"^predictor\.out_features is 7, projector\.out_features 8"
    with pytest.raises(ValueError, match=said):
        make(predictor=lambda width: Projector(width, out_features=7))


@pytest.mark.parametrize("temperature", [0.0, -1.0, 0.0099, float("nan")])
@pytest.mark.parametrize(
    "make",
    [
        lambda t: moco(temperature=t),
        lambda t: moco_v3(temperature=t),
        lambda t: micle(temperature=t),
        lambda t: Contrast(temperature=t),
    ],
)
def test_a_temperature_too_low_is_refused(make: Make, temperature: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^temperature must be at least 0\.01, got {temperature}"
    ):
        make(temperature)


@pytest.mark.parametrize(("make", "keys"), [(moco, 8), (c2l, 24)])
def test_a_queue_shorter_than_a_step_is_refused_and_one_just_as_long_is_not(
    make: Make, keys: int
) -> None:
    short = make(queue=lambda width: FeatureQueue(width, length=keys - 1))
    assert refusal(short).startswith(
        f"queue.length: {keys - 1} is less than the {keys} keys of one"
    )
    exact = make(queue=lambda width: FeatureQueue(width, length=keys))
    first, second = fit_steps(exact, random_batches(2))
    moved = first.under("queue")["keys_KD"] != second.under("queue")["keys_KD"]
    assert moved.any(1).all()


class Aborts(Callback):
    """Ends a fit between a loss and its gradient, when the keys are staged already."""

    def on_before_backward(self, *args: Any) -> None:
        raise RuntimeError("out of memory")


@pytest.mark.parametrize(("make", "keys"), [(moco, 8), (c2l, 24)])
def test_keys_of_a_fit_that_broke_off_do_not_enter_the_next(make: Make, keys: int) -> None:
    given, objective = random_batches(2), make()
    with pytest.raises(RuntimeError, match="out of memory"):
        fit_steps(objective, random_batches(1, seed=2), callbacks=[Aborts()])
    assert sum(map(len, objective.queue._staged)) == keys
    for after, fresh in zip(fit_steps(objective, given), fit_steps(make(), given), strict=True):
        assert after.terms == fresh.terms
        for name, value in fresh.state.items():
            assert torch.equal(after.state[name], value), name


@WITH_TWIN
@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_a_twin_in_16_bits_is_refused(make: Make, precision: str) -> None:
    """It would stay where it is: 16 bits do not hold w + 0.001 (student - w)."""
    name = type(make()).__name__
    assert refusal(make(), precision=precision) == (
        f"{name}: trainer.precision {precision} would leave its twin where it is; "
        f"set {precision[:-4]}mixed"
    )


@pytest.mark.parametrize("make", [lambda: micle("batch"), simclr])
@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_without_a_twin_16_bits_are_a_choice(make: Make, precision: str) -> None:
    objective = make()
    batches = random_batches(2)
    fit_steps(objective, batches, unit="study", precision=precision, callbacks=[])
    assert all(parameter.isfinite().all() for parameter in objective.parameters())
    assert not torch.equal(objective.encoder.layers[5].weight, make().encoder.layers[5].weight)


@pytest.mark.filterwarnings("ignore:When using `Trainer.accumulate_grad_batches")
@pytest.mark.parametrize(("epoch", "steps"), [(0, 0), (1, 2)])
def test_c2l_refuses_an_accumulation_that_a_callback_sets_before_it_steps(
    epoch: int, steps: int
) -> None:
    """`setup` comes too early to see it."""
    objective = c2l()
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    scheduler = GradientAccumulationScheduler(scheduling={epoch: 2})
    said = r"^C2L takes one batch a step: trainer\.accumulate_grad_batches is 2, set it to 1$"
    with pytest.raises(ValueError, match=said):
        fit_steps(objective, random_batches(2), max_steps=4, callbacks=[scheduler])
    if not steps:
        assert all(torch.equal(objective.state_dict()[name], start[name]) for name in start)
    assert int(objective.queue.pointer) == steps * 24 % objective.queue.length


@pytest.mark.parametrize("make", [moco_v3, byol])
def test_a_run_without_end_is_refused_where_the_twin_needs_one(make: Make) -> None:
    said = refusal(make(), max_steps=-1, max_epochs=-1)
    assert said.endswith("needs an end: set trainer.max_steps or trainer.max_epochs")


def test_one_of_the_two_ends_is_enough() -> None:
    for make in (moco_v3, byol):
        assert len(fit_steps(make(), random_batches(2), max_steps=-1, max_epochs=1)) == 2


@pytest.mark.parametrize("make", [moco, c2l])
@pytest.mark.parametrize("synchronised", [True, False])
def test_synchronised_batch_norms_in_place_of_shuffle_bn_are_told(
    make: Make,
    synchronised: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Made where Lightning makes them, in the strategy's setup; DDP has them on GPUs only."""
    setup = SingleDeviceStrategy.setup

    def converting(strategy: SingleDeviceStrategy, trainer: Trainer) -> None:
        if synchronised:
            nn.SyncBatchNorm.convert_sync_batchnorm(trainer.lightning_module)
        setup(strategy, trainer)

    monkeypatch.setattr(SingleDeviceStrategy, "setup", converting)
    fit_steps(make("batch"), random_batches(2))
    told = [r.getMessage() for r in caplog.records if r.name.startswith("lightning_rad")]
    assert [said.partition(":")[0] for said in told] == (
        ["trainer.sync_batchnorm is on"] if synchronised else []
    )
