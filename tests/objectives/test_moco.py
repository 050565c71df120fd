"""MoCo v1 and v2: the twin's keys, the queue of past ones, and batch norms that see other rows."""

from functools import partial
from typing import Any

import pytest
import torch
import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor, nn

from lightning_rad.collectives import rank, world_size
from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.moco import MoCo
from lightning_rad.schema import ViewBatch
from tests.configs.test_stacks import CONFIGS
from tests.gloo import run_on_ranks
from tests.objectives.fixed import fit_on_this_rank, fit_steps, random_batches, share
from tests.objectives.small_nets import Norm, SmallEncoder
from tests.objectives.spread import assert_alike_on_ranks

ROWS, LENGTH, TEMPERATURE = 8, 20, 0.2


def moco(norm: Norm = "none", **changes: Any) -> MoCo:
    """A queue of two batches and a half."""
    given: dict[str, Any] = {
        "projector": lambda width: Projector(width, out_features=8, norm="none", ending="biased"),
        "queue": lambda width: FeatureQueue(width, length=LENGTH),
        "optimizer": lambda groups: torch.optim.SGD(groups, lr=0.1),
        "momentum": 0.9,
        "temperature": TEMPERATURE,
        "seed": 3,
    }
    torch.manual_seed(0)
    return MoCo(SmallEncoder(norm), **(given | changes)).double()  # type: ignore[arg-type]


def batch() -> ViewBatch:
    return random_batches(1, rows=ROWS)[0]


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def test_a_query_is_view_0_and_finds_the_key_of_view_1_among_the_queue() -> None:
    objective, given = moco(), batch()
    queue = objective.queue.keys_KD.clone()
    made = objective.embed(given)
    torch.testing.assert_close(
        made["query"][0], objective.projector(objective.encoder(given.views[0]))
    )
    torch.testing.assert_close(made["key"][0], objective.twin(given.views[1]))
    q, k = unit(made["query"][0]), unit(made["key"][0])
    logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], dim=1) / TEMPERATURE
    wanted = nn.functional.cross_entropy(logits, torch.zeros(ROWS, dtype=torch.int64))
    assert objective.terms(made, given)["info_nce"].item() == pytest.approx(wanted.item())


def test_keys_get_no_gradient_and_nor_does_the_twin() -> None:
    objective, given = moco(), batch()
    made = objective.embed(given)
    assert not made["key"].requires_grad
    asked = {name: value.detach().requires_grad_() for name, value in made.items()}
    objective.terms(asked, given)["info_nce"].backward()
    assert asked["query"].grad is not None
    assert asked["key"].grad is None
    assert not any(p.requires_grad for p in objective.twin.parameters())


def test_the_queue_wraps_where_the_global_batch_does_not_divide_it() -> None:
    """20 places, 8 keys a step: the third step fills 16 to 19 and 0 to 3."""
    objective = moco()
    wanted = objective.queue.keys_KD.clone()
    for number, given in enumerate(random_batches(4, rows=ROWS)):
        made = objective.embed(given)
        objective.terms(made, given)
        objective.after_step(True)
        wanted[torch.arange(8 * number, 8 * number + 8) % LENGTH] = unit(made["key"][0])
        torch.testing.assert_close(objective.queue.keys_KD, wanted)
        assert int(objective.queue.pointer) == 8 * (number + 1) % LENGTH


def test_the_keys_of_all_micro_batches_enter_once_after_the_step() -> None:
    objective = moco()
    start = objective.queue.keys_KD.clone()
    keys = []
    for given in random_batches(2, rows=ROWS):
        made = objective.embed(given)
        q, k = unit(made["query"][0]), unit(made["key"][0])
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ start.T], dim=1) / TEMPERATURE
        wanted = nn.functional.cross_entropy(logits, torch.zeros(ROWS, dtype=torch.int64))
        assert objective.terms(made, given)["info_nce"].item() == pytest.approx(wanted.item())
        keys.append(k)
        assert torch.equal(objective.queue.keys_KD, start)
        assert int(objective.queue.pointer) == 0
    objective.after_step(True)
    torch.testing.assert_close(objective.queue.keys_KD[:16], torch.cat(keys))
    assert torch.equal(objective.queue.keys_KD[16:], start[16:])
    assert int(objective.queue.pointer) == 16


def test_accumulation_moves_queue_and_twin_once_a_step() -> None:
    objective = moco()
    twin = {name: p.clone() for name, p in objective.twin.net.named_parameters()}
    steps = fit_steps(objective, random_batches(4), accumulate_grad_batches=2, max_steps=2)
    assert [int(step.under("queue")["pointer"]) for step in steps] == [16, 32 % LENGTH]
    for step in steps:
        for name, value in step.chain("encoder", "projector").items():
            twin[name] = 0.9 * twin[name] + 0.1 * value
        torch.testing.assert_close(step.under("twin.net"), twin)


def test_a_queue_for_one_batch_does_not_hold_an_accumulated_step() -> None:
    short = moco(queue=lambda width: FeatureQueue(width, length=15))
    fit_steps(short, random_batches(1))
    passes: list[int] = []
    short.encoder.register_forward_pre_hook(lambda *_: passes.append(1))
    with pytest.raises(ValueError, match=r"^queue\.length: 15 is less than the 16 keys"):
        fit_steps(short, random_batches(2), accumulate_grad_batches=2)
    assert passes == []  # before the first step


def test_a_step_that_was_not_taken_moves_neither_twin_nor_queue() -> None:
    objective, given = moco(), batch()
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    objective.terms(objective.embed(given), given)
    with torch.no_grad():
        objective.encoder.layers[0].weight.add_(1.0)  # type: ignore[union-attr]
    objective.after_step(False)
    for name, value in objective.state_dict().items():
        if name.startswith(("twin", "queue")):
            assert torch.equal(value, start[name]), name
    objective.terms(objective.embed(given), given)
    objective.after_step(True)
    assert int(objective.queue.pointer) == ROWS  # the keys of the lost step are gone


class States(Callback):
    """The state after each batch."""

    def __init__(self) -> None:
        self.states: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.states.append({name: x.clone() for name, x in module.state_dict().items()})


@pytest.mark.parametrize("fused", [False, True])
def test_a_float16_overflow_moves_neither_twin_nor_queue(fused: bool) -> None:
    """A loss scale so large that the first gradient overflows; the scaler then halves it."""
    objective = moco(
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1, fused=fused),
    ).float()
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127, backoff_factor=2.0**-120)
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    given = random_batches(2)
    for one in given:
        one.views = one.views.float()
    watcher = States()
    fit_steps(objective, given, plugins=[precision], precision=None, callbacks=[watcher])
    first, second = watcher.states
    for name, value in first.items():
        assert torch.equal(value, start[name]), name
    assert int(second["queue.pointer"]) == ROWS
    assert not torch.equal(second["encoder.layers.0.weight"], start["encoder.layers.0.weight"])
    twin = 0.9 * start["encoder.layers.0.weight"] + 0.1 * second["encoder.layers.0.weight"]
    torch.testing.assert_close(second["twin.net.0.layers.0.weight"], twin)


# --- batch norms that see one rank each


def _shuffled(given: ViewBatch) -> tuple[Tensor, Tensor, Tensor]:
    """What the twin saw on this rank, its keys, and the rows' order."""
    objective = moco("batch")
    seen: list[Tensor] = []
    objective.twin.net.register_forward_pre_hook(lambda _, x: seen.append(x[0].clone()))
    keys = objective.embed(share(given, rank(), world_size()))["key"][0]
    [rows] = seen
    return rows, keys, objective.shuffle_order(ROWS)


def test_shuffle_bn_mixes_ranks_and_keys_come_back_in_their_places() -> None:
    given = batch()
    (mine, my_keys, order), (theirs, their_keys, their_order) = run_on_ranks(_shuffled, 2, given)
    assert torch.equal(order, their_order)
    whole = given.views[1]
    assert torch.equal(torch.cat([mine, theirs]), whole[order])
    assert 0 < sum(any(torch.equal(row, own) for own in whole[:4]) for row in mine) < 4
    keys = torch.empty(ROWS, 8, dtype=torch.float64)
    for rows in order.split(4):  # each half has batch statistics of its own
        keys[rows] = moco("batch").twin(whole[rows])
    torch.testing.assert_close(torch.cat([my_keys, their_keys]), keys)
    unshuffled = torch.cat([moco("batch").twin(part) for part in whole.split(4)])
    assert (unshuffled - keys).abs().max() > 1e-3


def test_the_shuffle_is_another_each_step_and_micro_step() -> None:
    objective = moco()
    first = objective.shuffle_order(64)
    assert torch.equal(objective.shuffle_order(64), first)
    objective._micro = 1
    assert not torch.equal(objective.shuffle_order(64), first)
    assert not torch.equal(moco(seed=4).shuffle_order(64), first)


def _seen_with_synchronised_norms(given: ViewBatch, synchronised: bool) -> Tensor:
    """In eval mode, for such norms train on GPUs only; the shuffle does not ask for the mode."""
    objective = moco("batch")
    if synchronised:
        objective = nn.SyncBatchNorm.convert_sync_batchnorm(objective)
    objective.eval()
    seen: list[Tensor] = []
    objective.twin.net.register_forward_pre_hook(lambda _, x: seen.append(x[0].clone()))
    objective.embed(share(given, rank(), world_size()))
    return seen[0]


@pytest.mark.parametrize("synchronised", [True, False])
def test_synchronised_batch_norms_need_no_shuffle(synchronised: bool) -> None:
    given = batch()
    seen = run_on_ranks(_seen_with_synchronised_norms, 2, given, synchronised)
    assert torch.equal(torch.cat(seen), given.views[1]) == synchronised


def test_same_loss_and_gradient_on_one_process_and_on_two() -> None:
    assert_alike_on_ranks(moco, batch(), 2)


def test_queue_and_twin_are_equal_on_all_ranks() -> None:
    for mine, theirs in zip(
        *run_on_ranks(fit_on_this_rank, 2, partial(moco, "batch"), random_batches(3)), strict=True
    ):
        assert mine.under("queue").keys() == {"keys_KD", "pointer"}
        parameters = [name for name, _ in moco("batch").twin.net.named_parameters()]
        for name in ("queue.keys_KD", "queue.pointer", *(f"twin.net.{n}" for n in parameters)):
            assert torch.equal(mine.state[name], theirs.state[name]), name


def test_v1_and_v2_differ_in_head_temperature_and_schedule_alone() -> None:
    v1, v2 = (
        yaml.safe_load((CONFIGS / f"objective/{name}.yaml").read_text())["model"]
        for name in ("moco_v1", "moco_v2")
    )
    assert v1["class_path"] == v2["class_path"]
    one, two = v1["init_args"], v2["init_args"]
    different = {key for key in one | two if one.get(key) != two.get(key)}
    assert different == {"projector", "temperature", "schedule"}
    heads = [Projector(16, **args["projector"]["init_args"]) for args in (one, two)]
    assert [[type(layer).__name__ for layer in head.layers] for head in heads] == [
        ["Linear"],
        ["Linear", "Identity", "ReLU", "Linear"],
    ]
