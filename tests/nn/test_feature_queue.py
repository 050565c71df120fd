"""The queue is a ring: against a plain list, whatever is staged, taken or dropped."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.nn.feature_queue import FeatureQueue


def keys(first: int, number: int) -> torch.Tensor:
    """Keys that tell who they are."""
    return torch.arange(first, first + number, dtype=torch.float32)[:, None].expand(-1, 3) + 10


@settings(deadline=None, max_examples=60)
@given(
    length=st.integers(1, 12),
    steps=st.lists(st.tuples(st.lists(st.integers(0, 5), max_size=4), st.booleans()), max_size=8),
)
def test_it_holds_the_newest_keys_in_the_order_they_came_round_a_ring(
    length: int, steps: list[tuple[list[int], bool]]
) -> None:
    queue = FeatureQueue(3, length=length)
    ring, place, made = queue.keys_KD.clone(), 0, 0
    for sizes, taken in steps:
        ahead, here, room = ring.clone(), place, length
        for size in sizes:
            number = min(size, room)
            room -= number
            new = keys(made, number)
            made += number
            queue.stage(new)
            for row in new:
                ahead[here % length] = row
                here += 1
            assert torch.equal(queue.upcoming(), ahead)
            assert torch.equal(queue.keys_KD, ring)
        if taken:
            queue.advance()
            ring, place = ahead, here % length
        else:
            queue.drop()
        assert torch.equal(queue.keys_KD, ring)
        assert torch.equal(queue.upcoming(), ring)
        assert int(queue.pointer) == place


def test_what_was_seen_of_the_future_does_not_change_with_it() -> None:
    queue = FeatureQueue(3, length=4)
    queue.stage(keys(0, 2))
    seen = queue.upcoming()
    copy = seen.clone()
    queue.stage(keys(5, 2))
    queue.advance()
    assert torch.equal(seen, copy)


def test_keys_and_pointer_are_state_and_what_is_staged_is_not() -> None:
    queue = FeatureQueue(3, length=5)
    queue.stage(keys(0, 3))
    queue.advance()
    queue.stage(keys(7, 1))
    state = queue.state_dict()
    assert state.keys() == {"keys_KD", "pointer"}
    other = FeatureQueue(3, length=5, seed=1)
    other.load_state_dict(state)
    for each in (queue, other):
        each.drop()
        each.stage(keys(20, 3))
        each.advance()
    assert torch.equal(queue.keys_KD, other.keys_KD)
    assert torch.equal(queue.keys_KD[:, 0], torch.tensor([32.0, 11, 12, 30, 31]))
    assert int(queue.pointer) == int(other.pointer) == 1


def test_it_starts_as_its_seed_says_whatever_else_was_drawn() -> None:
    first = FeatureQueue(8, length=50, seed=4).keys_KD
    torch.rand(3)
    assert torch.equal(FeatureQueue(8, length=50, seed=4).keys_KD, first)
    assert not torch.equal(FeatureQueue(8, length=50, seed=5).keys_KD, first)


def test_it_starts_on_the_sphere_or_uniform_in_a_cube() -> None:
    sphere = FeatureQueue(48, length=2000).keys_KD
    torch.testing.assert_close(sphere.norm(dim=1), torch.ones(2000))
    assert sphere.mean(0).abs().max() < 0.02
    cube = FeatureQueue(48, length=2000, init="uniform").keys_KD
    assert 0.249 < cube.abs().max() <= 0.25  # 1 / sqrt(48 / 3)
    assert cube.norm(dim=1).square().mean().item() == pytest.approx(1.0, abs=0.02)


def test_keys_of_another_precision_are_kept_in_the_queues_own() -> None:
    queue = FeatureQueue(3, length=4).double()
    queue.stage(keys(0, 2).bfloat16())
    assert queue.upcoming().dtype == torch.float64
    queue.advance()
    assert queue.keys_KD.dtype == torch.float64


def test_a_queue_wants_no_gradient_of_its_keys() -> None:
    queue = FeatureQueue(3, length=4)
    queue.stage(keys(0, 2).clone().requires_grad_())
    assert not queue.upcoming().requires_grad
    queue.advance()
    assert not queue.keys_KD.requires_grad


def test_more_keys_than_places_in_one_step_are_refused() -> None:
    queue = FeatureQueue(3, length=4)
    queue.stage(keys(0, 3))
    with pytest.raises(ValueError, match=r"^queue\.length: 4 is less than the 5 keys of one"):
        queue.stage(keys(3, 2))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"length": 0}, "length 0"),
        ({"features": 0}, "features 0"),
        ({"init": "normal"}, r"queue\.init: 'normal' is not one of \['sphere', 'uniform'\]"),
    ],
)
def test_what_cannot_be_a_queue_is_refused_by_name(arguments: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FeatureQueue(**({"features": 3, "length": 4} | arguments))


def test_keys_of_another_width_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^queue: keys \(2, 4\) for features 3$"):
        FeatureQueue(3, length=4).stage(torch.zeros(2, 4))
