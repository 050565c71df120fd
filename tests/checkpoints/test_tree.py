"""A tree comes back as it was, and what could not come back is refused by its place."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightning_rad.checkpoints import Writer, read
from lightning_rad.checkpoints.tree import join, split
from tests.checkpoints.trees import saved, trained
from tests.training.test_resume import assert_same_bits

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.bool)
tensors = st.builds(
    lambda shape, dtype, seed: torch.randint(
        0, 2, shape, generator=torch.Generator().manual_seed(seed)
    ).to(dtype),
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from(DTYPES),
    st.integers(0, 9),
)
plain = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
names = st.text("abcxyz_", min_size=1, max_size=4) | st.integers(0, 5)
trees = st.dictionaries(
    names,
    st.recursive(
        plain | tensors,
        lambda below: (
            st.lists(below, max_size=3)
            | st.lists(below, max_size=3).map(tuple)
            | st.dictionaries(names, below, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
)


def unambiguous(tree: dict[Any, Any]) -> bool:
    try:
        split(tree)
    except ValueError:
        return False
    return True


@given(trees.filter(unambiguous))
def test_what_was_split_is_joined_to_the_same(tree: dict[str, Any]) -> None:
    assert_same_bits(join(*split(tree)), tree)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees.filter(unambiguous))
def test_what_is_saved_is_read_bit_for_bit(tmp_path: Path, tree: dict[str, Any]) -> None:
    again = read(saved(tmp_path, 1, tree))
    assert_same_bits(again, tree)
    assert repr(type_of(again)) == repr(type_of(tree))


def type_of(value: Any) -> Any:
    """Types and dtypes of a tree, to be compared where == is too kind (True == 1)."""
    if isinstance(value, dict):
        return {(type(k), k): type_of(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return (type(value), [type_of(v) for v in value])
    return value.dtype if isinstance(value, torch.Tensor) else type(value)


def test_a_trained_state_comes_back_with_its_memory_format(tmp_path: Path) -> None:
    tree = trained(2)
    again = read(saved(tmp_path, 2, tree))
    assert_same_bits(again, tree)
    weight = again["state_dict"]["0.weight"]
    assert weight.stride() == tree["state_dict"]["0.weight"].stride()
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert not weight.is_contiguous()


class Thing:
    pass


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Thing(), r"callbacks\.probe\.x is a .*Thing"),
        (np.float64(1.0), r"callbacks\.probe\.x is a numpy\.float64"),
        (Counter("aab"), r"callbacks\.probe\.x is a collections\.Counter"),
        ({1.5: 2}, r"callbacks\.probe\.x has the key 1\.5"),
        ([1, {"y": {2}}], r"callbacks\.probe\.x\.1\.y is a builtins\.set"),
        (torch.eye(2).to_sparse(), r"callbacks\.probe\.x is a tensor without dense values"),
        (torch.empty(2, device="meta"), r"callbacks\.probe\.x is a tensor without dense values"),
    ],
)
def test_what_could_not_be_read_again_is_refused_by_its_place(
    tmp_path: Path, value: Any, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        Writer().save({"callbacks": {"probe": {"x": value}}}, tmp_path / "step-00000001", step=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "tree",
    [
        {"a": {1: torch.ones(1), "1": torch.zeros(1)}},
        {"a.b": 1, "a": {"b": torch.ones(1)}},
    ],
)
def test_two_places_of_one_name_are_refused(tree: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"two entries would both be called a\."):
        split(tree)
