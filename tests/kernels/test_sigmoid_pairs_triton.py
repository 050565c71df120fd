"""The Triton form of sigmoid pairs, interpreted on a CPU, against the definition in float64."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from lightning_rad.kernels.nce import nce
from lightning_rad.kernels.rows import fused_triton as rows_triton
from lightning_rad.kernels.rows.fused_triton import INTERPRETED
from lightning_rad.kernels.sigmoid_pairs import fused_triton, operator, sigmoid_pairs
from lightning_rad.kernels.sigmoid_pairs.reference import Side, pair_sum
from lightning_rad.kernels.temperature import Learned

if not INTERPRETED:
    pytest.skip("Triton is interpreted with TRITON_INTERPRET=1", allow_module_level=True)


def problem(rows: int, keys: int, dim: int, dtype: torch.dtype, labelled: int) -> tuple[Side, Side]:
    """labelled: 0 without ids, 1 with, 2 with groups, too."""
    make = torch.Generator().manual_seed(rows + keys + dim)
    sides = []
    for count in (rows, keys):
        x_ND = torch.randn(count, dim, generator=make)
        ids = torch.randint(2**40, 2**40 + 50, (count,), generator=make)
        groups = torch.randint(9, (count,), generator=make)
        sides.append(Side(x_ND.to(dtype), *(ids, groups)[:labelled]))
    return sides[0], sides[1]


def wanted(rows: Side, keys: Side, t: float, b: float, unit_keys: bool) -> list[Tensor]:
    """Loss and gradients of rows, keys, 1/t and b by autograd, in float64."""
    x, y = (side.x_ND.double().requires_grad_() for side in (rows, keys))
    numbers = [torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (1 / t, b)]
    loss = pair_sum(rows._replace(x_ND=x), keys._replace(x_ND=y), *numbers)
    loss.backward()
    gradients = [v.grad for v in (x, y, *numbers) if v.grad is not None]
    if unit_keys:
        gradients[1] = gradients[1][:0]
    return [loss.detach(), *gradients]


@pytest.mark.parametrize(
    ("shape", "dtype", "labelled", "unit_keys", "workspace"),
    [
        ((1, 1, 3), torch.float32, 1, False, 256),
        ((70, 80, 20), torch.float32, 0, True, 256),
        ((70, 80, 20), torch.float32, 1, False, 256),
        ((130, 70, 20), torch.float32, 2, False, 0),
        ((140, 150, 70), torch.bfloat16, 1, False, 256),
        ((260, 70, 70), torch.bfloat16, 2, False, 0),
        ((70, 80, 300), torch.float16, 2, False, 256),
    ],
)
def test_loss_and_every_gradient_are_those_of_the_definition(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    labelled: int,
    unit_keys: bool,
    workspace: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ragged tiles in every dimension; with no workspace a chunk is one tile of rows."""
    monkeypatch.setattr(rows_triton, "WORKSPACE_MIB", workspace)
    rows, keys = problem(*shape, dtype, labelled)
    length = 1.0
    if unit_keys:  # compared as they are, even if they are longer
        length = 1.5
        keys = keys._replace(x_ND=length * normalize(keys.x_ND))
    numbers = torch.tensor(10.0), torch.tensor(-3.0)
    got = fused_triton.one_pass(rows, keys, *numbers, keys_too=not unit_keys, unit_keys=unit_keys)
    want = wanted(rows, keys, 0.1 / length, -3.0, unit_keys)
    want[3] = length * want[3]
    assert got.loss.item() == pytest.approx(want[0].item(), rel=1e-5)
    assert len(got.to_key_MD) == (0 if unit_keys else shape[1])
    rounding = 6e-3 if dtype == torch.bfloat16 else 1e-5  # of the gradient in a logit
    for value, expected in zip(got[1:], want[1:], strict=True):
        assert (value - expected).norm() <= rounding * (expected.norm() + 1e-3 * want[0])
    # these leave the tile before anything is rounded
    torch.testing.assert_close(got[3:], tuple(x.float() for x in want[3:]), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("cosine", [-1.0, 1.0])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("scale", [10.0, 20.0, 50.0, 90.0])
def test_pairs_far_told_apart_or_confused_keep_their_digits(
    cosine: float, same: bool, scale: float
) -> None:
    row = torch.tensor([[3.0, 0.0]])
    rows, keys = Side(row, torch.tensor([1])), Side(cosine * row, torch.tensor([1 if same else 2]))
    numbers = torch.tensor(scale), torch.tensor(-10.0)
    got = fused_triton.one_pass(rows, keys, *numbers, keys_too=True, unit_keys=False)
    x = (cosine * scale - 10) * (-1 if same else 1)
    tiny = torch.finfo(torch.float32).tiny
    loss = max(x, 0.0) + math.log1p(math.exp(-abs(x)))
    assert got.loss.item() == pytest.approx(loss, rel=1e-4, abs=tiny)
    g = (-1 if same else 1) / (1 + math.exp(-x))
    assert got.to_bias.item() == pytest.approx(g, rel=1e-4, abs=tiny)
    assert got.to_scale.item() == pytest.approx(g * cosine, rel=1e-4, abs=tiny)


@pytest.mark.parametrize("z", [-9.0, -5.0, -2.5, -1.6, -1.0, -0.6, -0.3, -0.1, 0.0, 0.4, 3.0])
def test_the_loss_of_a_pair_is_right_to_the_last_digits(z: float) -> None:
    """Over the whole range of the polynomial, exp(-|z|) from 0 to 1."""
    rows, keys = Side(torch.tensor([[3.0, 0.0]])), Side(torch.tensor([[0.0, 1.0]]))
    numbers = torch.tensor(10.0), torch.tensor(z)
    got = fused_triton.one_pass(rows, keys, *numbers, keys_too=False, unit_keys=False)
    assert got.loss.item() == pytest.approx(math.log1p(math.exp(z)), rel=1e-6)
    assert got.to_bias.item() == pytest.approx(1 / (1 + math.exp(-z)), rel=1e-6)


def test_a_nan_is_not_hidden_and_float64_is_refused() -> None:
    rows, keys = problem(5, 4, 3, torch.float32, 0)
    numbers = torch.tensor(10.0), torch.tensor(-3.0)
    how: dict[str, Any] = {"keys_too": True, "unit_keys": False}
    keys.x_ND[1, 1] = torch.nan
    assert fused_triton.one_pass(rows, keys, *numbers, **how).loss.isnan()
    wide = rows._replace(x_ND=rows.x_ND.double())
    with pytest.raises(ValueError, match=r"'fused' has no .*float64 on a GPU"):
        fused_triton.one_pass(wide, wide, *numbers, **how)


def differentiated(loss_of: Any, *leaves: Tensor) -> list[Tensor]:
    """The loss, and its gradients in leaves for an upstream gradient of -1.7, in float64."""
    leaves = tuple(x.clone().requires_grad_() for x in leaves)
    loss = loss_of(*leaves)
    (-1.7 * loss).backward()
    return [loss.detach().double(), *(x.grad.double() for x in leaves if x.grad is not None)]


def assert_near(got: list[Tensor], want: list[Tensor], dtype: torch.dtype) -> None:
    """Of the norm of a gradient, which comes rounded to the type of its rows."""
    # the interpreter cuts bfloat16 off where a GPU rounds it
    bound = {torch.float32: 1e-5, torch.float16: 5e-4, torch.bfloat16: 8e-3}[dtype]
    assert got[0].item() == pytest.approx(want[0].item(), rel=1e-5)
    for value, expected in zip(got[1:], want[1:], strict=True):
        assert (value - expected).norm() <= bound * (expected.norm() + 1e-3 * want[0])


@pytest.mark.parametrize(
    ("dtype", "ranks", "labelled"),
    [
        (torch.float32, 1, 0),
        (torch.float32, 2, 1),
        (torch.float16, 1, 2),
        (torch.bfloat16, 1, 1),
        (torch.bfloat16, 2, 2),
    ],
)
def test_the_public_function_gives_the_definition_through_the_operator(
    dtype: torch.dtype, ranks: int, labelled: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels are columns of tables, with a stride; with two ranks this one is the second."""
    monkeypatch.setitem(operator.FORMS, "cpu", "fused_triton")
    images, texts = problem(24 * ranks, 24 * ranks, 20, dtype, 0)
    make = torch.Generator().manual_seed(ranks)
    tables = [torch.randint(9, (24 * ranks, 2), generator=make) for _ in range(2)]
    assert tables[0][:, 0].stride() == (2,)
    names = ("ids", "groups")[:labelled]
    how: dict[str, Any] = {
        name: tuple(table[:, k] for table in tables) for k, name in enumerate(names)
    }

    def loss_of(image: Tensor, text: Tensor, tau: Tensor, bias: Tensor, backend: Any) -> Tensor:
        every = (images.x_ND.to(image.dtype), texts.x_ND.to(text.dtype)) if ranks == 2 else None
        return sigmoid_pairs(
            image,
            text,
            temperature=Learned(tau, 0.01),
            bias=bias,
            gathered=every,
            part=ranks - 1,
            backend=backend,
            **how,
        )

    own = [s.x_ND[-24:] for s in (images, texts)]
    numbers = torch.tensor(0.1), torch.tensor(-3.0)
    got = differentiated(partial(loss_of, backend="fused"), *own, *numbers)
    wide = (x.double() for x in (*own, *numbers))
    want = differentiated(partial(loss_of, backend="reference"), *wide)
    assert len(got) == 5
    assert_near(got, want, dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nce_gives_its_definition_through_the_operator(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(operator.FORMS, "cpu", "fused_triton")
    query, keys = (side.x_ND for side in problem(70, 140, 20, dtype, 0))
    positive, keys = (normalize(x.float()).to(dtype) for x in (query, keys))

    def loss_of(query: Tensor, backend: Any) -> Tensor:
        unit = positive.to(query.dtype), keys.to(query.dtype)
        log_z = torch.tensor(8.0)
        how: dict[str, Any] = {"temperature": 0.1, "log_partition": log_z, "images": 900}
        return nce(query, *unit, **how, backend=backend)

    got = differentiated(partial(loss_of, backend="fused"), query)
    assert_near(got, differentiated(partial(loss_of, backend="reference"), query.double()), dtype)
