"""Shards written by some ranks are read by other numbers of ranks, and as whole tensors."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from lightning_rad.checkpoints import Writer, checkpoints, named, newest, read, verify
from lightning_rad.checkpoints import write as write_module
from lightning_rad.checkpoints.metadata import Reader
from lightning_rad.optim.lars import LARS
from tests.gloo import run_on_ranks

MEASURE = {
    "adamw": lambda params: torch.optim.AdamW(params, lr=1e-2),
    "lars": lambda params: LARS(params, lr=1e-1, momentum=0.9, weight_decay=1e-2),
}


def network(ranks: int) -> nn.Module:
    """In float64, with sizes that neither two nor four divide, one smaller than four."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(5, 7), nn.GELU(), nn.Linear(7, 3), nn.Linear(3, 1)).double()
    net.register_buffer("queue", torch.arange(6.0))
    if ranks > 1:
        mesh = init_device_mesh("cpu", (ranks,))
        for layer in net:
            fully_shard(layer, mesh=mesh)
        fully_shard(net, mesh=mesh)
    return net


def step(net: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> float:
    """One step on 8 rows of which each rank sees its share; the loss of all."""
    ranks, rank = dist.get_world_size(), dist.get_rank()
    x = torch.randn(8, 5, generator=torch.Generator().manual_seed(number), dtype=torch.float64)
    optimizer.zero_grad()
    loss = net(x.chunk(ranks)[rank]).square().mean()
    loss.backward()
    optimizer.step()
    total = loss.detach().clone()
    dist.all_reduce(total)
    return float(total / ranks)


def tree_of(net: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"state_dict": net.state_dict(), "optimizer_states": [optimizer.state_dict()]}


def train_and_save(name: str, folder: Path) -> float:
    net = network(dist.get_world_size())
    optimizer = MEASURE[name](net.parameters())
    for number in range(3):
        step(net, optimizer, number)
    writer = Writer()
    assert writer.save(tree_of(net, optimizer), folder / named(3), step=3)
    loss = step(net, optimizer, 3)  # in place, while the thread writes
    assert writer.wait() is None
    return loss


def load_and_step(name: str, path: Path, again: Path | None) -> float:
    ranks = dist.get_world_size()
    net = network(ranks)
    optimizer = MEASURE[name](net.parameters())
    params = dict(enumerate(net.parameters()))
    own = net.state_dict()

    def place(key: str, size: torch.Size, dtype: torch.dtype) -> Tensor:
        section, _, name = key.partition(".")
        like = own[name] if section == "state_dict" else params[int(name.split(".")[2])]
        return torch.empty_like(like, dtype=dtype) if like.shape == size else torch.empty(size)

    tree = read(path, place=place)
    net.load_state_dict(tree["state_dict"])
    optimizer.load_state_dict(tree["optimizer_states"][0])
    if again is not None:
        writer = Writer()
        assert writer.save(tree_of(net, optimizer), again, step=3)
        assert writer.wait() is None
    return step(net, optimizer, 3)


@pytest.mark.parametrize("name", MEASURE)
def test_four_ranks_then_two_then_one_take_the_same_next_step(tmp_path: Path, name: str) -> None:
    four, two, one = (tmp_path / str(ranks) for ranks in (4, 2, 1))
    losses = run_on_ranks(train_and_save, 4, name, four)
    losses += run_on_ranks(load_and_step, 2, name, four / named(3), two / named(3))
    losses += run_on_ranks(load_and_step, 1, name, two / named(3), one / named(3))
    losses += run_on_ranks(load_and_step, 4, name, one / named(3), None)
    assert losses == pytest.approx([losses[0]] * 11, rel=1e-9)
    whole = [read(path / named(3)) for path in (four, two, one)]
    names = whole[0]["state_dict"]
    assert names["0.weight"].shape == (7, 5)
    assert names["queue"].tolist() == [0, 1, 2, 3, 4, 5]
    for other in whole[1:]:  # what was saved, not only what follows from it, is the same in bits
        assert all(torch.equal(names[k], x) for k, x in other["state_dict"].items())
        mine, theirs = (t["optimizer_states"][0]["state"] for t in (whole[0], other))
        assert all(torch.equal(mine[p][k], x) for p in theirs for k, x in theirs[p].items())


def test_every_rank_wrote_its_part_and_each_value_once(tmp_path: Path) -> None:
    run_on_ranks(train_and_save, 4, "adamw", tmp_path)
    contents = verify(tmp_path / named(3))
    shards = sorted(name for name in contents.files if name.endswith(".distcp"))
    assert shards == [f"__{rank}_0.distcp" for rank in range(4)]


def save_where_a_rank_fails(folder: Path) -> list[str]:
    """The outcomes on this rank: rank 1 cannot write, then all can, then rank 1 is not finite."""
    net = network(dist.get_world_size())
    tree, writer, said = {"state_dict": net.state_dict()}, Writer(), []
    real = write_module.measure

    def full(file: Path) -> Any:
        raise OSError(28, "No space left on device")

    if dist.get_rank() == 1:
        write_module.measure = full
    writer.save(tree, folder / named(1), step=1)
    said.append(str(writer.wait()))
    write_module.measure = real
    writer.save(tree, folder / named(2), step=2)
    said.append(str(writer.wait()))
    weight = net.state_dict()["0.weight"]
    assert isinstance(weight, DTensor)
    if dist.get_rank() == 1:
        weight.to_local().fill_(float("nan"))
    said.append(str(writer.save(tree, folder / named(3), step=3)))
    return said


def test_all_ranks_hear_of_the_failure_of_one_and_the_next_save_works(tmp_path: Path) -> None:
    told = run_on_ranks(save_where_a_rank_fails, 2, tmp_path)
    assert told[0] == told[1]
    failed, worked, refused = told[0]
    assert "rank 1: OSError: [Errno 28] No space left on device" in failed
    assert (worked, refused) == ("None", "False")
    assert [p.name for p in tmp_path.iterdir()] == [named(2)]


def hybrid(folder: Path) -> Any:
    """Copies of shards: two by two ranks."""
    torch.manual_seed(0)
    net = nn.Linear(5, 7)
    expected = net.weight.detach().clone()
    fully_shard(net, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("copy", "shard")))
    writer = Writer()
    assert writer.save({"state_dict": net.state_dict()}, folder / named(1), step=1)
    assert writer.wait() is None
    return expected


def test_copies_of_shards_are_written_once_and_read_whole(tmp_path: Path) -> None:
    expected = run_on_ranks(hybrid, 4, tmp_path)[0]
    found = newest(tmp_path)
    assert found is not None
    assert torch.equal(read(found)["state_dict"]["weight"], expected)
    written = Reader(found).read_metadata().storage_data
    assert len(written) == 4  # two tensors, each in two shards, from one of their two copies


@pytest.mark.parametrize("size", [(9, 9), (5, 7), (7,)])
def test_a_place_of_another_size_is_refused_by_name(tmp_path: Path, size: tuple[int, ...]) -> None:
    writer = Writer()
    writer.save({"state_dict": {"w": torch.ones(7, 5)}}, tmp_path / named(1), step=1)
    writer.wait()
    [path] = checkpoints(tmp_path).values()
    with pytest.raises(ValueError, match=r"state_dict\.w is of \(7, 5\), \(.*\) is wanted"):
        read(path, place=lambda *_: torch.empty(size))


def _save_own_statistics(folder: Path) -> None:
    net = network(2)
    net.register_buffer("statistics", torch.full((3,), float(dist.get_rank())))
    net.register_buffer("others", torch.full((50,), float(dist.get_rank())))
    writer = Writer()
    writer.save({"state_dict": net.state_dict()}, folder / named(1), step=1)
    assert writer.wait() is None


def test_buffers_that_differ_between_ranks_are_those_of_the_first(tmp_path: Path) -> None:
    """As under DDP: statistics of which some are one rank's and some another's are nobody's."""
    run_on_ranks(_save_own_statistics, 2, tmp_path, timeout=240)
    state = read(tmp_path / named(1))["state_dict"]
    assert torch.equal(state["statistics"], torch.zeros(3))
    assert torch.equal(state["others"], torch.zeros(50))
