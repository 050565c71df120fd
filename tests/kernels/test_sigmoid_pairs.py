"""Sigmoid pairs against a formula in float64, one pair at a time, in every form, at the edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lightning_rad.kernels.sigmoid_pairs import Labels, fused_cpu, operator, sigmoid_pairs
from lightning_rad.kernels.temperature import Learned

FORMS = ["reference", "fused"]


def formula(image: Any, text: Any, t: float, b: float, ids: Any, groups: Any = None) -> float:
    """-sum log sigmoid(y (s / t + b)) / N in scalars, for any x without overflow."""
    image, text = (
        x / np.maximum(np.sqrt((x**2).sum(1, keepdims=True)), 1e-6) for x in (image, text)
    )
    losses = []
    for i, j in np.ndindex(len(image), len(text)):
        same = ids[0][i] == ids[1][j]
        if groups is not None and not same and groups[0][i] == groups[1][j] != 0:
            continue
        x = math.fsum(image[i] * text[j]) / t + b
        x = -x if same else x
        losses.append(max(x, 0.0) + math.log1p(math.exp(-abs(x))))
    return math.fsum(losses) / len(image)


def problem(seed: int, images: int, texts: int, dim: int) -> tuple[Tensor, Tensor]:
    """Float64 rows; text k lies near image k."""
    make = torch.Generator().manual_seed(seed)
    base, *noise = torch.randn(3, max(images, texts), dim, generator=make, dtype=torch.float64)
    return base[:images] + 0.5 * noise[0][:images], base[:texts] + 0.5 * noise[1][:texts]


def labels(seed: int, images: int, texts: int, below: int) -> Labels:
    make = torch.Generator().manual_seed(seed)
    return (
        torch.randint(below, (images,), generator=make),
        torch.randint(below, (texts,), generator=make),
    )


def result(image: Tensor, text: Tensor, t: float, b: float, **how: Any) -> tuple[Tensor, ...]:
    """The loss, and with an upstream gradient of -1.7 those of images, texts, 1/t and b."""
    image, text = (x.clone().requires_grad_() for x in (image, text))
    wide = torch.promote_types(image.dtype, torch.float32)
    tau, bias = (torch.tensor(x, dtype=wide, requires_grad=True) for x in (t, b))
    with torch.autocast("cpu", dtype=torch.bfloat16):  # which must not reach it
        loss = sigmoid_pairs(image, text, temperature=Learned(tau, t), bias=bias, **how)
    (-1.7 * loss).backward()
    assert image.grad is not None
    assert text.grad is not None
    assert tau.grad is not None
    assert bias.grad is not None
    return loss.detach(), image.grad, text.grad, -tau.grad * t**2, bias.grad


@settings(deadline=None, max_examples=80)
@given(
    seed=st.integers(0, 10**6),
    images=st.integers(1, 9),
    texts=st.integers(1, 11),
    dim=st.integers(1, 9),
    t=st.sampled_from([0.02, 0.07, 0.1, 0.5]),
    b=st.sampled_from([-10.0, 0.0, 3.5]),
    units=st.integers(1, 12),
    groups=st.integers(0, 5),
    side=st.tuples(st.integers(1, 4), st.integers(1, 5)),
)
def test_every_form_equals_the_formula_and_their_gradients_agree(
    seed: int,
    images: int,
    texts: int,
    dim: int,
    t: float,
    b: float,
    units: int,
    groups: int,
    side: tuple[int, int],
) -> None:
    image, text = problem(seed, images, texts, dim)
    ids = labels(seed, images, texts, units)
    grouped = labels(seed + 1, images, texts, groups) if groups else None
    wanted = formula(image.numpy(), text.numpy(), t, b, ids, grouped)
    how: dict[str, Any] = {"ids": ids, "groups": grouped}
    dense = result(image, text, t, b, backend="reference", **how)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused_cpu, "ROWS", side[0])
        patch.setattr(fused_cpu, "KEYS", side[1])
        fused = result(image, text, t, b, backend="fused", **how)
    assert dense[0].item() == pytest.approx(wanted, rel=1e-12, abs=1e-14)
    assert fused[0].item() == pytest.approx(wanted, rel=1e-12, abs=1e-14)
    torch.testing.assert_close(fused[1:], dense[1:], rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("count", [1, 2, 7])
def test_by_default_image_i_belongs_to_text_i(backend: Any, count: int) -> None:
    image, text = problem(1, count, count, 5)
    numbers = [range(count)] * 2
    wanted = formula(image.numpy(), text.numpy(), 0.1, -10.0, numbers)
    got = sigmoid_pairs(image, text, temperature=0.1, bias=-10.0, backend=backend)
    assert got.item() == pytest.approx(wanted, rel=1e-13)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("t", [0.02, 0.1, 0.5])
@pytest.mark.parametrize("grouped", [False, True])
def test_gradients_are_those_of_differences(
    backend: Any, t: float, grouped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused_cpu, "ROWS", 2)
    monkeypatch.setattr(fused_cpu, "KEYS", 3)
    image, text = problem(2, 5, 7, 4)
    ids = labels(3, 5, 7, 4)
    groups = labels(4, 5, 7, 3) if grouped else None

    def loss(image: Tensor, text: Tensor, tau: Tensor, bias: Tensor) -> Tensor:
        learned = Learned(tau, 0.9 * t)
        return -1.7 * sigmoid_pairs(
            image, text, temperature=learned, bias=bias, ids=ids, groups=groups, backend=backend
        )

    asked = [torch.tensor(x, dtype=torch.float64) for x in (t, -2.0)]
    inputs = [x.requires_grad_() for x in (image, text, *asked)]
    assert torch.autograd.gradcheck(loss, inputs, eps=1e-7, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("t", [0.02, 0.07, 0.1, 0.5])
@pytest.mark.parametrize("b", [-10.0, 0.0])
@pytest.mark.parametrize("backend", FORMS)
def test_float32_keeps_the_tolerance_of_the_table(
    backend: Any, t: float, b: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over several blocks of rows and keys, ragged ones among them."""
    monkeypatch.setattr(fused_cpu, "ROWS", 64)
    monkeypatch.setattr(fused_cpu, "KEYS", 100)
    image, text = (x.float() for x in problem(5, 150, 230, 65))
    ids = torch.arange(150), torch.arange(230)
    wanted = result(image.double(), text.double(), t, b, ids=ids, backend="reference")
    got = result(image, text, t, b, ids=ids, backend=backend)
    bound = 1e-6 + 2e-7 / t + 1e-7 * abs(b)
    assert (got[0] - wanted[0]).abs() <= bound * wanted[0]
    for k, rows in ((1, image), (2, text)):
        size = 1.7 / (t * len(image)) / rows.norm(dim=1)  # of a pair that is not told apart
        assert ((got[k] - wanted[k]).norm(dim=1) <= bound * size * (1 + wanted[0])).all()
    absolute = 1.7 * wanted[0] * bound  # |g| <= loss of a pair, |s| <= 1
    assert (got[3] - wanted[3]).abs() <= 2 * absolute
    assert (got[4] - wanted[4]).abs() <= 2 * absolute


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", FORMS)
def test_low_precision_rows_are_widened_and_their_gradients_come_back_in_kind(
    backend: Any, dtype: torch.dtype
) -> None:
    image, text = (x.to(dtype) for x in problem(6, 9, 9, 12))
    wanted = result(image.double(), text.double(), 0.07, -10.0, backend="reference")
    got = result(image, text, 0.07, -10.0, backend=backend)
    assert got[0].dtype == torch.float32
    assert got[0].item() == pytest.approx(wanted[0].item(), rel=1e-5)
    for k in (1, 2):
        assert got[k].dtype == dtype
        torch.testing.assert_close(got[k].double(), wanted[k], rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("cosine", [-1.0, 1.0])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("t", [0.01, 0.02, 0.05, 0.1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_far_told_apart_or_confused_keep_their_digits(
    backend: Any, cosine: float, same: bool, t: float, dtype: torch.dtype
) -> None:
    """Losses from exp(-110) to 110: a difference of sigmoid and 1 would hold none of these."""
    image = torch.tensor([[3.0, 0.0]], dtype=dtype)
    ids = torch.tensor([1]), torch.tensor([1 if same else 2])
    b = -10.0
    x = (cosine / t + b) * (-1 if same else 1)
    loss, _, _, to_scale, to_bias = result(image, cosine * image, t, b, ids=ids, backend=backend)
    relative = 1e-4 if dtype == torch.float32 else 1e-12
    tiny = torch.finfo(dtype).tiny
    wanted = max(x, 0.0) + math.log1p(math.exp(-abs(x)))
    assert loss.item() == pytest.approx(wanted, rel=relative, abs=tiny)
    g = -1.7 * (-1 if same else 1) / (1 + math.exp(-x))
    assert to_bias.item() == pytest.approx(g, rel=relative, abs=tiny)
    assert to_scale.item() == pytest.approx(g * cosine, rel=relative, abs=tiny)


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("scale", [0.0, 1e-38, 1e-20, 1e-6, 1.0, 1e20, 1e37])
def test_rows_of_any_length_are_finite_and_the_length_does_not_matter(
    backend: Any, scale: float
) -> None:
    image, text = (x.float() for x in problem(7, 4, 4, 6))
    text[0] = 0
    got = result(image * scale, text, 0.1, -10.0, backend=backend)
    assert all(x.isfinite().all() for x in got)
    if 1e-5 < scale < 1e30:
        wanted = result(image, text, 0.1, -10.0, backend=backend)
        torch.testing.assert_close(got[0], wanted[0])
        torch.testing.assert_close(got[1] * scale, wanted[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("backend", FORMS)
def test_a_pair_of_a_group_is_neither_pulled_nor_pushed(backend: Any) -> None:
    """Studies 0 and 2 have the same report; study 1 shares its unknown group 0 with study 3."""
    image, text = problem(8, 4, 4, 6)
    hashes = torch.tensor([7, 0, 7, 0])
    how: dict[str, Any] = {"temperature": 0.1, "bias": -1.0, "backend": backend}
    numbers = torch.arange(4), torch.arange(4)
    with_groups = sigmoid_pairs(image, text, groups=(hashes, hashes), **how)
    everything = sigmoid_pairs(image, text, **how)
    apart = [
        formula(image[[i]].numpy(), text[[j]].numpy(), 0.1, -1.0, [[0], [1]])
        for i, j in ((0, 2), (2, 0))
    ]
    assert (everything - with_groups).item() == pytest.approx(sum(apart) / 4, rel=1e-10)
    unknown = torch.zeros(4, dtype=torch.int64)
    assert torch.equal(sigmoid_pairs(image, text, groups=(unknown, unknown), **how), everything)
    own = torch.arange(1, 5)
    assert torch.equal(
        sigmoid_pairs(image, text, ids=numbers, groups=(own, own), **how), everything
    )


@pytest.mark.parametrize("backend", FORMS)
def test_gathered_from_one_rank_is_a_single_pass_and_the_same(
    backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, text = problem(12, 6, 6, 5)
    wanted = result(image, text, 0.1, -2.0, backend=backend)
    ran = []
    inner = fused_cpu.one_pass
    monkeypatch.setattr(fused_cpu, "one_pass", lambda *a, **k: ran.append(1) or inner(*a, **k))
    got = result(image, text, 0.1, -2.0, backend=backend, gathered=(image, text))
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert len(ran) == (backend == "fused")


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("part", [0, 1, 2])
def test_the_parts_of_ranks_sum_to_the_whole_and_hold_all_of_its_gradient(
    backend: Any, part: int
) -> None:
    """Values and shares of 1/t and b add up; gradients of rows are already those of the sum."""
    image, text = problem(13, 6, 9, 5)
    ids, groups = labels(14, 6, 9, 5), labels(15, 6, 9, 3)
    how: dict[str, Any] = {"ids": ids, "groups": groups, "backend": backend}
    whole = result(image, text, 0.1, -2.0, **how)
    shares = [
        result(
            image[2 * k : 2 * k + 2],
            text[3 * k : 3 * k + 3],
            0.1,
            -2.0,
            gathered=(image, text),
            part=k,
            **how,
        )
        for k in range(3)
    ]
    for number in (0, 3, 4):
        mean = sum(share[number] for share in shares) / 3
        torch.testing.assert_close(mean, whole[number], rtol=1e-12, atol=1e-13)
    own = shares[part]
    torch.testing.assert_close(own[1] / 3, whole[1][2 * part : 2 * part + 2])
    torch.testing.assert_close(own[2] / 3, whole[2][3 * part : 3 * part + 3])


@pytest.mark.parametrize("backend", FORMS)
def test_a_nan_is_not_hidden(backend: Any) -> None:
    image, text = problem(9, 5, 5, 4)
    text[3, 1] = torch.nan
    assert sigmoid_pairs(image, text, temperature=0.1, bias=0.0, backend=backend).isnan()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # of opcheck
def test_it_compiles_without_a_graph_break_and_the_operator_is_sound() -> None:
    image, text = (x.requires_grad_() for x in problem(10, 6, 6, 5))
    tau, bias = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (0.3, -2.0))

    def loss(image: Tensor, text: Tensor, tau: Tensor, bias: Tensor) -> Tensor:
        learned = Learned(tau, 0.1)
        return sigmoid_pairs(image, text, temperature=learned, bias=bias, backend="fused")

    given_ = image, text, tau, bias
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    got = torch.autograd.grad(compiled(*given_), given_)
    torch.testing.assert_close(got, torch.autograd.grad(loss(*given_), given_))
    ids = torch.arange(6)
    arguments = (image, ids, None, text, ids, None, tau, bias)
    for keys_too in (True, False):
        torch.library.opcheck(operator._sigmoid_pairs, (*arguments, keys_too, not keys_too))


def test_auto_takes_the_one_pass_on_a_cpu_once_and_spares_keys_that_ask_for_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ran = []
    inner = fused_cpu.one_pass

    def counted(*args: Any, keys_too: bool, **how: Any) -> Any:
        ran.append(keys_too)
        return inner(*args, keys_too=keys_too, **how)

    monkeypatch.setattr(fused_cpu, "one_pass", counted)
    image, text = problem(11, 400, 400, 5)
    for asks, backend in ((True, "auto"), (True, "reference"), (False, "auto")):
        asking = text.clone().requires_grad_(asks)
        sigmoid_pairs(image, asking, temperature=0.1, bias=0.0, backend=backend)  # type: ignore[arg-type]
    assert ran == [True, False]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backend": "fast"}, "'fast' is not one of"),
        ({"temperature": 0.0}, r"temperature: 0\.0"),
        ({"text_MD": torch.ones(3, 3)}, r"do not match: \[\(3, 2\), \(3, 3\)"),
        ({"image_ND": torch.ones(3)}, "do not match"),
        ({"text_MD": torch.ones(4, 2)}, "ids: missing, for 3 images and 4 texts"),
        ({"part": 1}, "part: 1 is not among the 1"),
        ({"part": -1}, "part: -1 is not among the 1"),
        ({"gathered": (torch.ones(6, 2), torch.ones(3, 2))}, "ids: missing"),
        ({"gathered": (torch.ones(5, 2), torch.ones(5, 2))}, "not equal parts of ranks"),
        ({"gathered": (torch.ones(6, 2), torch.ones(6, 2)), "part": 2}, "part: 2 is not among"),
        ({"ids": (torch.arange(3), torch.arange(2))}, r"ids \(2,\) for 3 keys"),
        ({"groups": (torch.arange(3).int(), torch.arange(3))}, "groups must be int64, not"),
    ],
)
def test_unusable_arguments_are_refused_by_name(change: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "image_ND": torch.ones(3, 2),
        "text_MD": torch.ones(3, 2),
        "temperature": 0.1,
        "bias": 0.0,
    }
    assert sigmoid_pairs(**good).isfinite()
    with pytest.raises(ValueError, match=message):
        sigmoid_pairs(**(good | change))
