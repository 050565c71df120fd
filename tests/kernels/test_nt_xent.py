"""NT-Xent against a formula in float64 NumPy, row by row, and its behaviour at the edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_rad.kernels import nt_xent as package
from lightning_rad.kernels.nt_xent import nt_xent


def formula(
    z: Any,
    keys: Any,
    ids: Any,
    key_ids: Any,
    offset: int,
    temperature: float,
    groups: Any = None,
) -> tuple[Any, float]:
    """Losses of the rows and their mean over rows with a positive, one scalar at a time."""
    row_groups, key_groups = groups or ([0] * len(z), [0] * len(keys))
    z, keys = (x / np.maximum(np.sqrt((x**2).sum(1, keepdims=True)), 1e-6) for x in (z, keys))
    losses, counted = np.zeros(len(z)), []
    for i in range(len(z)):
        others = [j for j in range(len(keys)) if j != offset + i]
        positives = [j for j in others if key_ids[j] == ids[i]]
        if not positives:
            continue
        rivals = [
            j
            for j in others
            if key_ids[j] == ids[i] or row_groups[i] == 0 or key_groups[j] != row_groups[i]
        ]
        logit = {j: math.fsum(z[i] * keys[j]) / temperature for j in rivals}
        top = max(logit.values())
        lse = top + math.log(math.fsum(math.exp(v - top) for v in logit.values()))
        losses[i] = lse - math.fsum(logit[j] for j in positives) / len(positives)
        counted.append(losses[i])
    return losses, math.fsum(counted) / len(counted) if counted else 0.0


def problem(
    seed: int, rows: int, before: int, after: int, dim: int, units: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Float64 keys whose rows [before, before + rows) are the rows, with ids below `units`."""
    make = torch.Generator().manual_seed(seed)
    keys = torch.randn(before + rows + after, dim, generator=make, dtype=torch.float64)
    ids = torch.randint(units, (len(keys),), generator=make)
    own = slice(before, before + rows)
    return keys[own].clone(), keys, ids[own].clone(), ids


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 13),
    before=st.integers(0, 9),
    after=st.integers(0, 9),
    dim=st.integers(1, 17),
    units=st.integers(1, 12),
    temperature=st.sampled_from([0.02, 0.1, 0.5]),
    as_tensor=st.booleans(),
)
def test_equals_the_formula_for_any_rows_keys_and_positives(
    seed: int,
    rows: int,
    before: int,
    after: int,
    dim: int,
    units: int,
    temperature: float,
    as_tensor: bool,
) -> None:
    z, keys, ids, key_ids = problem(seed, rows, before, after, dim, units)
    want, mean = formula(
        z.numpy(), keys.numpy(), ids.tolist(), key_ids.tolist(), before, temperature
    )
    tau = torch.tensor(temperature, dtype=torch.float64) if as_tensor else temperature
    got = nt_xent(z, keys, ids, key_ids, offset=before, temperature=tau, reduction="none")
    np.testing.assert_allclose(got.numpy(), want, rtol=1e-11, atol=1e-11)
    got = nt_xent(z, keys, ids, key_ids, offset=before, temperature=tau)
    assert got.item() == pytest.approx(mean, rel=1e-11, abs=1e-11)
    got = nt_xent(z.float(), keys.float(), ids, key_ids, offset=before, temperature=tau)
    if not as_tensor:
        assert got.dtype == torch.float32
    assert got.item() == pytest.approx(mean, rel=1e-5, abs=5e-7 / temperature)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 13),
    before=st.integers(0, 9),
    after=st.integers(0, 9),
    units=st.integers(1, 9),
    groups=st.integers(1, 5),
    temperature=st.sampled_from([0.05, 0.5]),
)
def test_a_key_of_the_rows_group_but_not_of_its_id_leaves_the_denominator(
    seed: int, rows: int, before: int, after: int, units: int, groups: int, temperature: float
) -> None:
    z, keys, ids, key_ids = problem(seed, rows, before, after, 5, units)
    make = torch.Generator().manual_seed(seed)
    key_groups = torch.randint(groups, (len(keys),), generator=make)  # some are 0, unknown
    pair = (torch.randint(groups, (rows,), generator=make), key_groups)
    want, mean = formula(
        z.numpy(),
        keys.numpy(),
        ids.tolist(),
        key_ids.tolist(),
        before,
        temperature,
        tuple(g.tolist() for g in pair),
    )

    def got(reduction: Any) -> Tensor:
        return nt_xent(
            z,
            keys,
            ids,
            key_ids,
            offset=before,
            temperature=temperature,
            groups=pair,
            reduction=reduction,
        )

    np.testing.assert_allclose(got("none").numpy(), want, rtol=1e-11, atol=1e-11)
    assert got("mean").item() == pytest.approx(mean, rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("group", [0, 7])
def test_unknown_groups_and_groups_of_one_unit_exclude_nothing(group: int) -> None:
    z, keys, ids, key_ids = problem(8, 6, 2, 2, 4, 4)
    none = (ids + group, key_ids + group) if group else (ids * 0, key_ids * 0)
    plain, grouped = (
        nt_xent(z, keys, ids, key_ids, offset=2, temperature=0.1, groups=g, reduction="none")
        for g in (None, none)
    )
    assert torch.equal(plain, grouped)


def test_an_excluded_key_gets_no_gradient_and_its_own_row_stays() -> None:
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    ids, groups = torch.tensor([0, 0, 1]), torch.tensor([5, 5, 5])
    loss = nt_xent(z, z, ids, ids, offset=0, temperature=0.1, groups=(groups, groups))
    (grad,) = torch.autograd.grad(loss, z)
    assert not grad[2].any()  # without a positive its row does not count, and it repels nobody
    assert nt_xent(z, z, ids, ids, offset=0, temperature=0.1) > loss


@pytest.mark.parametrize("ids", [[0, 0], [0, 0, 1, 1], [0, 1]])
def test_rows_left_with_nothing_but_their_positive_give_zero(ids: list[int]) -> None:
    z = torch.randn(len(ids), 4, generator=torch.Generator().manual_seed(0))
    groups = torch.ones(len(ids), dtype=torch.int64)
    loss, grad = gradient_at(z, torch.tensor(ids), 0.01, (groups, groups))
    assert loss.item() == 0
    assert grad.abs().max() <= 1e-5


@pytest.mark.parametrize("temperature", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize(("rows", "units"), [(1, 1), (5, 3), (6, 20)])
@pytest.mark.parametrize("grouped", [False, True])
def test_gradients_of_rows_keys_and_temperature_are_right(
    temperature: float, reduction: Any, rows: int, units: int, grouped: bool
) -> None:
    z, keys, ids, key_ids = problem(3, rows, 2, 3, 4, units)
    groups = (ids // 2, key_ids // 2) if grouped else None  # units 0 and 1 of an unknown group
    tau = torch.tensor(temperature, dtype=torch.float64, requires_grad=True)

    def loss(z: Tensor, keys: Tensor, tau: Tensor) -> Tensor:
        return -3.7 * nt_xent(
            z,
            keys,
            ids,
            key_ids,
            offset=2,
            temperature=tau,
            groups=groups,
            reduction=reduction,
        )  # an upstream gradient that is not 1

    inputs = (z.requires_grad_(), keys.requires_grad_(), tau)
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-7, atol=1e-5, rtol=1e-5)


def test_pairs_of_two_views_have_the_entropy_of_simclr() -> None:
    z = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    unit = torch.nn.functional.normalize(z, dim=1)
    logits = (unit @ unit.T / 0.1).fill_diagonal_(-torch.inf)
    partner = torch.arange(8).roll(4)
    want = torch.nn.functional.cross_entropy(logits, partner)
    ids = torch.arange(4).repeat(2)
    torch.testing.assert_close(
        nt_xent(z, z, ids, ids, offset=0, temperature=0.1), want, rtol=1e-13, atol=0
    )


def test_rows_split_over_ranks_average_to_the_whole() -> None:
    z, _, ids, _ = problem(5, 12, 0, 0, 6, 1)
    ids = torch.arange(6).repeat(2)
    whole = nt_xent(z, z, ids, ids, offset=0, temperature=0.1)
    parts = [
        nt_xent(z[k : k + 4], z, ids[k : k + 4], ids, offset=k, temperature=0.1) for k in (0, 4, 8)
    ]
    torch.testing.assert_close(torch.stack(parts).mean(), whole, rtol=1e-13, atol=0)


def gradient_at(
    z: Tensor, ids: Tensor, temperature: float, groups: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    z = z.clone().requires_grad_()
    loss = nt_xent(z, z, ids, ids, offset=0, temperature=temperature, groups=groups)
    loss.backward()
    assert z.grad is not None
    return loss.detach(), z.grad


@pytest.mark.parametrize("rows", [1, 2, 4])
def test_rows_without_a_positive_give_zero_and_no_gradient(rows: int) -> None:
    loss, grad = gradient_at(torch.randn(rows, 3), torch.arange(rows), 0.1)
    assert loss.item() == 0
    assert not grad.any()


def test_a_row_without_a_positive_leaves_the_mean_but_stays_a_negative() -> None:
    z = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.9, 0.2]])
    alone, pair = torch.tensor([0, 0, 1]), torch.tensor([0, 0])
    loss, grad = gradient_at(z, alone, 0.1)
    per_row = nt_xent(z, z, alone, alone, offset=0, temperature=0.1, reduction="none")
    assert per_row[2] == 0
    torch.testing.assert_close(loss, per_row[:2].mean())
    assert loss > gradient_at(z[:2], pair, 0.1)[0]
    assert grad[2].any()


@pytest.mark.parametrize("temperature", [0.01, 0.5])
@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-20, 1e-6, 1.0, 1e20, 1e37])
def test_extreme_norms_give_finite_loss_and_gradient(scale: float, temperature: float) -> None:
    make = torch.Generator().manual_seed(1)
    z = torch.randn(6, 8, generator=make)
    z[::2] *= scale
    loss, grad = gradient_at(z, torch.arange(3).repeat(2), temperature)
    assert loss.isfinite()
    assert grad.isfinite().all()


@pytest.mark.parametrize("scale", [2.0**-16, 2.0**120])
def test_the_norm_of_a_row_does_not_matter_even_where_its_square_overflows(scale: float) -> None:
    z, _, ids, _ = problem(2, 6, 0, 0, 4, 3)
    loss, grad = gradient_at(z.float(), ids, 0.1)
    scaled_loss, scaled_grad = gradient_at(z.float() * scale, ids, 0.1)
    torch.testing.assert_close(scaled_loss, loss, rtol=1e-6, atol=0)
    torch.testing.assert_close(scaled_grad * scale, grad, rtol=1e-5, atol=1e-6)


def embeddings(kind: str, rows: int, dim: int) -> Tensor:
    """Two views each of rows / 2 units: strangers, near twins, or all alike."""
    make = torch.Generator().manual_seed(rows)
    first, second = torch.randn(2, rows // 2, dim, generator=make)
    if kind == "twins":
        second = first + 0.3 * second
    z = torch.cat([first, second])
    return 1 + 1e-3 * z if kind == "collapsed" else z


@pytest.mark.parametrize("temperature", [0.01, 0.02, 0.1, 0.5])
@pytest.mark.parametrize("kind", ["strangers", "twins", "collapsed"])
@pytest.mark.parametrize(("rows", "dim"), [(6, 4), (256, 128)])
@pytest.mark.parametrize("grouped", [False, True])
def test_float32_keeps_the_tolerance_of_the_table(
    kind: str, rows: int, dim: int, grouped: bool, temperature: float
) -> None:
    z, ids = embeddings(kind, rows, dim), torch.arange(rows // 2).repeat(2)
    groups = (ids % 3, ids % 3) if grouped else None
    loss, grad = gradient_at(z, ids, temperature, groups)
    want_loss, want_grad = gradient_at(z.double(), ids, temperature, groups)
    bound = 1e-6 * want_loss.abs() + 2e-7 / temperature
    assert (loss - want_loss).abs() <= bound
    row_scale = 1 / (temperature * rows * z.norm(dim=1))
    assert ((grad - want_grad).norm(dim=1) <= row_scale * (1e-6 + 2e-7 / temperature)).all()


def test_identical_rows_at_a_low_temperature_stay_exact() -> None:
    z = torch.ones(6, 4)  # collapsed: every logit is 100, the softmax is uniform over 5 keys
    loss, grad = gradient_at(z, torch.arange(3).repeat(2), 0.01)
    assert loss.item() == pytest.approx(math.log(5), rel=1e-5)
    assert grad.abs().max() < 1e-4


def test_a_nan_is_not_hidden() -> None:
    z = torch.randn(4, 3)
    z[1, 1] = torch.nan
    assert gradient_at(z, torch.tensor([0, 1, 0, 1]), 0.1)[0].isnan()


@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_autocast_does_not_reach_the_loss(low: torch.dtype) -> None:
    z, _, ids, _ = problem(4, 32, 0, 0, 64, 16)
    low_z = z.to(low)
    want = nt_xent(low_z.double(), low_z.double(), ids, ids, offset=0, temperature=0.05)
    with torch.autocast("cpu", dtype=low):
        got = nt_xent(low_z, low_z, ids, ids, offset=0, temperature=0.05)
        learned = torch.tensor(0.05, dtype=low)
        assert nt_xent(low_z, low_z, ids, ids, offset=0, temperature=learned).dtype == got.dtype
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(want.item(), rel=2e-6)


def test_compiles_without_a_graph_break() -> None:
    z, _, ids, _ = problem(6, 8, 0, 0, 5, 4)
    compiled = torch.compile(nt_xent, backend="eager", fullgraph=True)
    for groups in (None, (ids % 2, ids % 2)):
        got = compiled(z, z, ids, ids, offset=0, temperature=0.1, groups=groups)
        want = nt_xent(z, z, ids, ids, offset=0, temperature=0.1, groups=groups)
        torch.testing.assert_close(got, want)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_and_is_never_waited_for() -> None:
    z, ids = embeddings("strangers", 256, 128), torch.arange(128).repeat(2)
    groups = ids % 5
    want_loss, want_grad = gradient_at(z, ids, 0.1, (groups, groups))
    cuda_z, cuda_ids, cuda_groups = z.cuda(), ids.cuda(), groups.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss, grad = gradient_at(cuda_z, cuda_ids, 0.1, (cuda_groups, cuda_groups))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(loss.cpu(), want_loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(grad.cpu(), want_grad, rtol=1e-4, atol=1e-7)


def test_auto_refuses_a_matrix_that_is_too_large_and_names_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(package, "AUTO_LIMIT_MIB", 1)
    z, ids = torch.randn(513, 2), torch.zeros(513, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"513 x 513 similarities .* backend 'reference'"):
        nt_xent(z, z, ids, ids, offset=0, temperature=0.1)
    assert nt_xent(z, z, ids, ids, offset=0, temperature=0.1, backend="reference").isfinite()
    assert nt_xent(z[:512], z[:512], ids[:512], ids[:512], offset=0, temperature=0.1).isfinite()


LABELS_3, LABELS_4 = torch.zeros(3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "fast"}, "'fast' is not one of .*'auto', 'reference'"),
        ({"temperature": 0.0}, "temperature: 0.0"),
        ({"temperature": math.nan}, "temperature: nan"),
        ({"offset": 2}, "offset: rows 2 to 5 are not among 4 keys"),
        ({"offset": -1}, "offset"),
        ({"keys_MD": torch.zeros(4, 3)}, "do not match"),
        ({"row_ids_N": torch.zeros(2, dtype=torch.int64)}, "ids .* one for each"),
        ({"key_ids_M": torch.zeros(4)}, "ids must be int64"),
        ({"groups": (LABELS_3, LABELS_3)}, r"groups \(3,\), \(3,\) for 3 rows and 4 keys: one for"),
        ({"groups": (LABELS_3[:, None], LABELS_4)}, r"groups \(3, 1\)"),
        ({"groups": (LABELS_3, LABELS_4.int())}, "groups must be int64, not .*int64 and .*int32"),
    ],
)
def test_unusable_arguments_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "z_ND": torch.zeros(3, 2),
        "keys_MD": torch.zeros(4, 2),
        "row_ids_N": LABELS_3,
        "key_ids_M": LABELS_4,
        "offset": 0,
        "temperature": 0.1,
    }
    assert nt_xent(**good).isfinite()
    with pytest.raises(ValueError, match=message):
        nt_xent(**(good | change))
