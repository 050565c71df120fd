from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from lightning_rad.evaluation.linear import LinearHead, LinearProbe


def _data(rows: int = 150, dims: int = 12, findings: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    mixing = torch.randn(dims, dims, generator=generator)
    x = torch.randn(rows, dims, generator=generator) @ mixing * 5 + 20
    truth = torch.randn(dims, findings, generator=generator) / dims
    y = (torch.rand(rows, findings, generator=generator) < ((x - 20) @ truth - 1).sigmoid()).float()
    return x, y


def _objective(head: LinearHead, x: Tensor, y: Tensor) -> float:
    loss = binary_cross_entropy_with_logits(head.scores(x)[:, 0], y.double())
    return float(loss + 0.5 * head.strength * head.weight.square().sum())


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("strength", [1e-3, 1e-1, 3.0])
def test_the_fit_is_scikit_learns_optimum_column_by_column(masked: bool, strength: float) -> None:
    x, y = _data()
    if masked:
        y[torch.rand(y.shape, generator=torch.Generator().manual_seed(1)) < 0.4] = math.nan
    head = LinearProbe(tolerance=1e-8).fit_at(strength, x, y)
    z = ((x.double() - x.double().mean(0)) / x.double().std(0, correction=0)).numpy()
    assert head.gradient < 1e-7
    for c in range(y.shape[1]):
        known = ~y[:, c].isnan().numpy()
        peer = LogisticRegression(C=1 / (strength * known.sum()), tol=1e-12, max_iter=10_000)
        peer.fit(z[known], y[known, c].numpy())
        column = head.weight[:, c]
        np.testing.assert_allclose(column.numpy(), peer.coef_[0], atol=2e-5, rtol=1e-4)
        assert float(head.bias[c]) == pytest.approx(float(peer.intercept_[0]), abs=1e-4)
        ours = LinearHead(head.mean, head.scale, column[:, None], head.bias[c], strength, 0.0)
        theirs = LinearHead(
            head.mean,
            head.scale,
            torch.from_numpy(peer.coef_[0])[:, None],
            torch.tensor(peer.intercept_[0]),
            strength,
            0.0,
        )
        assert _objective(ours, x[known], y[known, c]) <= (
            _objective(theirs, x[known], y[known, c]) + 1e-10
        )


def test_a_finding_does_not_change_with_its_company_or_with_rows_unknown_to_it() -> None:
    x, y = _data()
    probe = LinearProbe(tolerance=1e-8)
    together, alone = probe.fit_at(0.01, x, y), probe.fit_at(0.01, x, y[:, 1:2])
    torch.testing.assert_close(together.weight[:, 1:2], alone.weight, atol=1e-6, rtol=0)
    mean, std = x.mean(0), x.std(0, correction=0)
    # more rows of unknown label, placed so that the standardisation stays
    padded = torch.cat([x, (mean + std)[None], (mean - std)[None]])
    labels = torch.cat([y, torch.full((2, 3), math.nan)])
    torch.testing.assert_close(
        probe.fit_at(0.01, padded, labels).bias, together.bias, atol=1e-4, rtol=0
    )


def test_findings_without_both_classes_get_no_weights_and_disturb_nothing() -> None:
    x, y = _data()
    wide = torch.cat(
        [y, torch.zeros(150, 1), torch.ones(150, 1), torch.full((150, 1), math.nan)], 1
    )
    head, plain = LinearProbe().fit_at(0.1, x, wide), LinearProbe().fit_at(0.1, x, y)
    assert head.scores(x)[:, 3:].isnan().all()
    torch.testing.assert_close(head.weight[:, :3], plain.weight, atol=1e-5, rtol=0)
    nothing = LinearProbe().fit(x, wide[:, 3:], np.arange(150), seed=0)
    assert nothing.scores(x).isnan().all()


@pytest.mark.parametrize("spoil", [math.nan, math.inf])
def test_features_that_are_not_finite_teach_nothing(spoil: float) -> None:
    x, y = _data()
    x[4, 2] = spoil
    head = LinearProbe().fit(x, y, np.arange(150), seed=0)
    assert head.weight.isnan().all()
    assert head.gradient == 0.0  # no solver was sent after a NaN, which takes it seconds


def test_a_constant_feature_is_neither_divided_by_zero_nor_blown_up() -> None:
    x, y = _data()
    x[:, 0] = 0.1  # not exact in binary: its mean over rows rounds
    x[:, 1] = 0.0
    head = LinearProbe().fit_at(0.01, x, y)
    assert head.scale[:2].tolist() == [1.0, 1.0]
    moved = x.clone()
    moved[:, 0] += 1e-7
    torch.testing.assert_close(head.scores(moved), head.scores(x), atol=1e-4, rtol=0)


def test_no_rows_are_no_error() -> None:
    x, y = _data()
    assert LinearProbe().fit(x[:0], y[:0], np.arange(0), seed=0).scores(x).isnan().all()
    head = LinearProbe().fit(x, y, np.arange(150), seed=0)
    assert head.scores(x[:0]).shape == (0, 3)


def _literal_choice(probe: LinearProbe, x: Tensor, y: Tensor, held: Tensor) -> float:
    losses = {}
    for strength in probe.strengths:
        logits = probe.fit_at(strength, x[~held], y[~held]).scores(x[held])
        losses[strength] = float(binary_cross_entropy_with_logits(logits, y[held].double()))
    return min(losses, key=lambda s: losses[s])


def test_the_strength_is_the_one_that_held_out_patients_like_best() -> None:
    x, y = _data(rows=120, dims=40)
    probe = LinearProbe(strengths=(1e-4, 1e-2, 1.0, 1e4))
    patient = np.arange(120) // 3
    chosen = probe.fit(x, y, patient, seed=5).strength
    aside = np.random.default_rng(5).permutation(40)[:10]
    held = torch.from_numpy(np.isin(patient, aside))
    assert chosen == _literal_choice(probe, x, y, held)
    assert chosen not in (1e-4, 1e4)


def test_no_patient_is_on_both_sides_when_the_strength_is_chosen() -> None:
    """Each patient's three images share a fingerprint that tells the label: with a leak the
    weakest penalty looks best; without it the fingerprint is noise and a strong one must win."""
    generator = torch.Generator().manual_seed(0)
    patient = np.arange(240) // 3
    x = torch.randn(80, 200, generator=generator).repeat_interleave(3, 0)
    x += 0.01 * torch.randn(x.shape, generator=generator)
    y = (torch.rand(80, 1, generator=generator) < 0.5).float().repeat_interleave(3, 0)
    probe = LinearProbe(strengths=(1e-4, 1e2))
    assert probe.fit(x, y, patient, seed=0).strength == 1e2
    assert probe.fit(x, y, np.arange(240), seed=0).strength == 1e-4  # rows held out: the leak


def test_a_single_patient_or_equal_losses_give_the_strongest_penalty() -> None:
    x, y = _data()
    assert LinearProbe().fit(x, y, np.zeros(150, np.int64), seed=0).strength == 1.0
    none = torch.full_like(y, math.nan)
    assert LinearProbe().fit(x, none, np.arange(150), seed=0).strength == 1.0


def test_a_fit_is_repeatable_to_the_bit_and_runs_in_inference_mode() -> None:
    x, y = _data()
    once = LinearProbe().fit(x, y, np.arange(150), seed=0)
    state = torch.get_rng_state()
    with torch.inference_mode():
        again = LinearProbe().fit(x.clone(), y.clone(), np.arange(150), seed=0)
    assert torch.equal(once.weight, again.weight)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"strengths": ()}, "linear.strengths"),
        ({"strengths": (1.0, 0.0)}, "linear.strengths"),
        ({"holdout": 1.0}, "linear.holdout"),
        ({"max_iter": 0}, "linear.max_iter"),
        ({"tolerance": 0.0}, "linear.tolerance"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(arguments: dict[str, object], key: str) -> None:
    with pytest.raises(ValueError, match=key):
        LinearProbe(**arguments)  # type: ignore[arg-type]
