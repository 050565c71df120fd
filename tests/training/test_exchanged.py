"""What ranks exchange a step under each strategy: every call of a process group is counted.

Calls are seen where torch hands them to a process group, so those of DDP's reducer, in C++, too.
The arithmetic that is held against them fills the table of docs/numerics.md, "Ranks".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from pytorch_lightning import Callback
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.exchanges import Calls, Layout, backwards, reduced, sharded
from lightning_rad.objectives.base import Objective
from lightning_rad.optim.lars import LARS
from lightning_rad.training.agreement import Agreement
from lightning_rad.training.stop import Stop
from lightning_rad.training.strategies import DDP, Sharded
from tests import gloo
from tests.objectives.evidence import views_of
from tests.objectives.fixed import random_batches
from tests.training.spread_nets import KINDS, VIT, Encoder, made, on_ranks
from tests.training.test_strategies import resnet

run_on_ranks = partial(gloo.run_on_ranks, timeout=240)

NAMES = {
    "c10d._allgather_base_": ("all-gather", 1),
    "c10d._reduce_scatter_base_": ("reduce-scatter", 0),
    "c10d.allreduce_": ("all-reduce", 0),
    "c10d.broadcast_": ("broadcast", 0),
    "_c10d_functional.all_reduce": ("all-reduce", 0),
    "c10d.recv_": ("pass on", 0),
}
"""What torch calls them, and which of the tensors is what one rank receives from another; others
keep their name and count as nothing. What is sent is counted where it is received."""


class Watch(TorchDispatchMode):
    """Every collective that is begun meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented  # what it does to its shards is seen
        named = func.name().split("::")
        ours = named[0] in ("c10d", "_c10d_functional")
        if ours and not named[1].startswith(("wait", "_wrap", "send")):
            name, which = NAMES.get(str(func._overloadpacket), (func.name(), None))
            size = 0 if which is None else _tensors(args)[which].nbytes
            self.seen.append((name, size))
        return func(*args, **(kwargs or {}))


def _tensors(args: Any) -> list[Tensor]:
    if isinstance(args, Tensor):
        return [args]
    return [x for arg in args for x in _tensors(arg)] if isinstance(args, list | tuple) else []


class Steps(Callback):
    """How many calls there had been when each batch ended."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self.marks = watch, list[int]()

    def on_train_batch_end(self, *_: Any) -> None:
        self.marks.append(len(self.watch.seen))


def counted(make: Callable[[], Objective], *strategies: Callable[[], Any], **how: Any) -> list[Any]:
    """What this rank's fourth step exchanges under each strategy, from the end of the third on.

    Only from the third on are DDP's buckets those that stay.
    """
    found = []
    micro, size = how.get("accumulate_grad_batches", 1), how.pop("size", 16)
    for strategy in strategies:
        objective, watch = make(), Watch()
        steps = Steps(watch)
        batches = random_batches(4 * micro, rows=8, size=size, views=views_of(objective))
        for batch in batches:
            batch.views = batch.views.to(next(objective.parameters()).dtype)
        ours = {"callbacks": [Agreement(), Stop(signals=()), steps]}  # as every run has them
        with (
            watch,
            patch("tests.training.spread_nets.random_batches", lambda *_, b=batches, **__: b),
        ):
            on_ranks(objective, strategy(), **(how | ours))
        found.append(Counter(watch.seen[steps.marks[3 * micro - 1] : steps.marks[-1]]))
    return found


def of_parameters(calls: Calls, name: str, ranks: int, size: int) -> Calls:
    """All but those of rows, on bad losses and (every second step) on stopping, which are there."""
    others = rows(name, ranks, size) + Counter([("all-reduce", 4), ("all-reduce", 8)])
    assert others <= calls
    return calls - others


def rows(name: str, ranks: int, size: int) -> Calls:
    """docs/numerics.md, "Ranks", of 8 units, 2 views and 7 features; losses on a CPU are dense.

    A study of REFERS has 12 features of each of three views.
    """
    units, features = 8 // ranks, 7
    of_view, of_all = size * features * units, size * features * 2 * units
    labels, of_study = ("all-gather", 8 * 2 * units), ("all-gather", size * 3 * 12 * units)
    # rows of both kinds, units, radiomic features in float64, how many labels are known
    seen = [("all-gather", of_all), labels, ("all-gather", 8 * 102 * units), ("all-gather", 8)]
    each = {
        "simclr": [("all-gather", of_all), labels],
        "micle": [("all-gather", of_all), labels, labels],
        "moco": [("all-gather", of_view)],
        "moco_v3": [("all-gather", of_view)] * 2,
        "c2l": [("all-gather", of_view)] * 3,
        "byol": [],
        "barlow_twins": [("all-gather", of_all), ("reduce-scatter", of_all)],
        "vicreg": [("all-gather", of_all), ("reduce-scatter", of_all)],
        "image_report_clip": [("all-gather", of_all)] * 2 + [labels] * 2,
        "image_report_siglip": [("all-gather", of_all)] * 2 + [labels] * 2,
        "knowledge_contrast": seen,
        "knowledge_contrast_grad_cam": seen,
        "gaze_predictor": [("all-gather", 8)],
        "refers": [of_study] * 2 + [("all-gather", 8 * units)] * 2 + [("all-gather", 8)],
    }
    return Counter(each[name])


KEPT = partial(Sharded, reshard_after_forward=False)
OVER_NODES = partial(Sharded, shard_over="node")
COMPRESSED = partial(DDP, compress_gradients=True)


@pytest.mark.parametrize("name", KINDS)
def test_a_step_exchanges_what_the_arithmetic_says(name: str) -> None:
    strategies = DDP, COMPRESSED, Sharded, KEPT
    first, second = run_on_ranks(counted, 2, partial(made, name), *strategies)
    assert first == second
    plain, compressed, freed, kept = (of_parameters(calls, name, 2, 8) for calls in first)
    objective = made(name)
    [(_, weight)] = reduced(backwards(objective, 8))
    assert plain == Counter([("all-reduce", weight)])
    assert compressed == Counter([("all-reduce", weight // 4)])  # of float64
    assert freed == sharded(objective, Layout(2), size=8)
    assert kept == sharded(objective, Layout(2, reshard=False), size=8)


WIDE = VIT | {"depth": 3, "embed_dim": 96}


def wide(name: str) -> Objective:
    """Of 1.5 MB in float32, with a parameter that does not learn."""

    def encoder() -> Encoder:
        return Encoder("vit_tiny_patch16_224", image_size=16, kwargs=WIDE, frozen=["patch_embed"])

    return made(name, encoder=encoder)


def _arrivals() -> tuple[list[int], Calls]:
    """Bytes of gradients in the order in which backward gives them, and DDP's step."""
    objective = wide("moco_v3")
    order: list[int] = []
    for p in objective.parameters():
        if p.requires_grad:
            p.register_post_accumulate_grad_hook(lambda p: order.append(p.numel() * 8))
    [calls] = counted(lambda: objective, partial(DDP, bucket_cap_mb=1))
    return order[: len(order) // 4], calls


def test_buckets_are_filled_in_the_order_of_backward() -> None:
    objective = wide("moco_v3")
    for order, calls in run_on_ranks(_arrivals, 2):
        assert len(order) == sum(p.requires_grad for p in objective.parameters())
        expected = reduced(order, cap=2**20)
        assert of_parameters(calls, "moco_v3", 2, 8) == expected
        assert sum(expected.values()) == sum(reduced(backwards(objective, 8), 2**20).values()) > 2


def _low(name: str) -> Objective:
    return (resnet() if name == "resnet" else wide(name)).float()


@pytest.mark.parametrize(
    ("name", "rows_of", "size"), [("moco_v3",) * 2 + (16,), ("resnet", "byol", 32)]
)
def test_bfloat16_halves_what_is_gathered_and_batch_norms_keep_float32(
    name: str, rows_of: str, size: int
) -> None:
    strategies = COMPRESSED, Sharded, partial(Sharded, parameters="float32")
    how = {"precision": "bf16-mixed", "plugins": [], "size": size}
    [found, _] = run_on_ranks(partial(counted, **how), 2, partial(_low, name), *strategies)
    compressed, low, own = (of_parameters(calls, rows_of, 2, 4) for calls in found)
    objective = _low(name)
    assert compressed == reduced(backwards(objective, 2))
    assert low == sharded(objective, Layout(2, bfloat16=True))
    assert own == sharded(objective, Layout(2))
    assert (low == own) == (name == "resnet")


def test_a_node_gathers_by_itself_and_gradients_pass_between_nodes_once_a_step() -> None:
    how = {"nodes": 2, "accumulate_grad_batches": 2, "max_steps": 4}
    found = run_on_ranks(partial(counted, **how), 4, partial(wide, "moco_v3"), OVER_NODES, DDP)
    assert found[1:] == found[:-1]
    others = rows("moco_v3", 4, 8)  # of the second micro-batch
    apart, alike = (of_parameters(calls, "moco_v3", 4, 8) - others for calls in found[0])
    assert apart == sharded(wide("moco_v3"), Layout(2, nodes=2, accumulated=2), size=8)
    assert alike == reduced(backwards(wide("moco_v3"), 8))


def in_pieces(name: str) -> Objective:
    objective = made(name)
    objective.embed_at_once = 1
    return objective


@pytest.mark.parametrize("name", ["simclr", "moco_v3"])
def test_what_is_embedded_in_pieces_is_gathered_for_each_and_reduced_once(name: str) -> None:
    [found, _] = run_on_ranks(counted, 2, partial(in_pieces, name), Sharded, DDP)
    parts, whole = (of_parameters(calls, name, 2, 8) for calls in found)
    assert parts == sharded(made(name), Layout(2, pieces=4), size=8)
    assert whole == reduced(backwards(made(name), 8))


def with_lars() -> Objective:
    return made("byol", optimizer=lambda groups: LARS(groups, lr=0.1))


def test_norms_over_shards_are_one_all_reduce() -> None:
    """LARS: of weight and gradient of each tensor that it adapts; clipping: of each gradient."""
    clipped = partial(counted, gradient_clip_val=0.1)
    [[plain], _] = run_on_ranks(clipped, 2, with_lars, Sharded)
    calls = of_parameters(plain, "byol", 2, 8)
    objective = with_lars()
    groups = objective.configure_optimizers().param_groups
    adapted = sum(len(group["params"]) for group in groups if group["adapt"])
    learned = sum(p.requires_grad for p in objective.parameters())
    more = Counter([("all-reduce", 2 * 8 * adapted), ("all-reduce", 8 * learned)])
    assert calls == sharded(objective, Layout(2), size=8) + more
