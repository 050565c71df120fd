"""A linear probe: logistic regression of every finding on standardised frozen features.

For each finding c, over the rows whose label is known,

    minimise  mean_i BCE(x_i . w_c + b_c, y_ic) + strength / 2 |w_c|^2

by full-batch L-BFGS in float64, all findings at once (their sum is separable, so each reaches its
own optimum). The bias carries no penalty. The gradient is written out, so the fit runs inside
`torch.inference_mode` too. Shapes: N rows, D features, C findings.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus

from lightning_rad.evaluation.bootstrap import Ints


@dataclass(frozen=True, slots=True)
class LinearHead:
    """A fitted probe, and how it came about.

    mean, scale: the standardisation, [D]. weight [D, C] and bias [C]: NaN for findings that the
    fitting rows could not teach (one class or no known label). strength: the penalty used.
    gradient: the largest absolute entry of the objective's gradient where the fit stopped.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    strength: float
    gradient: float

    def scores(self, features_ND: Tensor) -> Tensor:
        """Log-odds [N, C], float64."""
        return (features_ND.double() - self.mean) / self.scale @ self.weight + self.bias


@dataclass(frozen=True)  # no slots: jsonargparse reads defaults with vars()
class LinearProbe:
    """The penalties tried, the patients held out to choose one, and the effort of a fit.

    The penalty with the smallest mean log-loss on held-out patients is refitted on all rows; of
    equal ones the strongest wins.

    Args:
        strengths: L2 penalties tried, each above 0.
        holdout: Share of the fitting patients held out to choose, above 0 and below 1.
        max_iter: L-BFGS iterations at most, at least 1.
        tolerance: Largest gradient entry that counts as solved, above 0.
    """

    strengths: tuple[float, ...] = (0.001, 0.01, 0.1, 1.0)
    holdout: float = 0.25
    max_iter: int = 1000
    tolerance: float = 1e-6

    def __post_init__(self) -> None:
        if not self.strengths or not all(0.0 < s < math.inf for s in self.strengths):
            raise ValueError(
                f"linear.strengths must be one or more finite numbers above 0, "
                f"not {list(self.strengths)}"
            )
        if not 0.0 < self.holdout < 1.0:
            raise ValueError(
                f"linear.holdout must lie between 0 and 1, both excluded, not {self.holdout}"
            )
        if self.max_iter < 1:
            raise ValueError(f"linear.max_iter must be 1 or more, not {self.max_iter}")
        if not 0.0 < self.tolerance < math.inf:
            raise ValueError(f"linear.tolerance must be above 0 and finite, not {self.tolerance}")

    def fit(
        self, features_ND: Tensor, labels_NC: Tensor, patient_N: Ints, *, seed: int
    ) -> LinearHead:
        """Choose the penalty on held-out patients, then fit on all rows.

        labels_NC: 1, 0, or NaN where unknown. patient_N: numbers as from `clusters`.
        """
        strength = self._choose(features_ND, labels_NC, patient_N, seed)
        return self.fit_at(strength, features_ND, labels_NC)

    def fit_at(self, strength: float, features_ND: Tensor, labels_NC: Tensor) -> LinearHead:
        """Fit at one penalty. A finding without both classes gets NaN weights.

        So do all findings where a feature is not finite.
        """
        features_ND = features_ND.double()
        mean_D, scale_D = _standardisation(features_ND)
        taught_C = teachable(labels_NC) & features_ND.isfinite().all()
        weight, gradient = self._solve(
            (features_ND - mean_D) / scale_D, labels_NC[:, taught_C].double(), strength
        )
        solution = features_ND.new_full((features_ND.shape[1] + 1, len(taught_C)), math.nan)
        solution[:, taught_C] = weight
        return LinearHead(mean_D, scale_D, solution[:-1], solution[-1], strength, gradient)

    def _choose(self, features_ND: Tensor, labels_NC: Tensor, patient_N: Ints, seed: int) -> float:
        """The penalty with the least held-out log-loss; the strongest where nothing can tell."""
        ordered = sorted(self.strengths, reverse=True)
        patients = int(patient_N.max()) + 1 if len(patient_N) else 0
        aside = np.random.default_rng(seed).permutation(patients)[: round(patients * self.holdout)]
        held = torch.from_numpy(np.isin(patient_N, aside)).to(features_ND.device)
        if len(ordered) == 1 or not bool(held.any()) or bool(held.all()):
            return ordered[0]
        losses = [
            _log_loss(
                self.fit_at(s, features_ND[~held], labels_NC[~held]).scores(features_ND[held]),
                labels_NC[held].double(),
            )
            for s in ordered
        ]
        finite = [loss if math.isfinite(loss) else math.inf for loss in losses]
        return ordered[finite.index(min(finite))]

    def _solve(self, x_ND: Tensor, y_NC: Tensor, strength: float) -> tuple[Tensor, float]:
        """Weights and, as the last row, biases [D + 1, C] at the optimum; largest gradient."""
        known_NC = ~y_NC.isnan()
        y_NC = y_NC.nan_to_num(0.0)
        share_NC = known_NC / known_NC.sum(0).clamp(min=1)
        theta = x_ND.new_zeros(x_ND.shape[1] + 1, y_NC.shape[1])
        theta[-1] = torch.logit((y_NC * share_NC).sum(0))
        if not theta.numel() or not y_NC.shape[1]:
            return theta, 0.0

        def objective() -> Tensor:
            logits_NC = torch.addmm(theta[-1], x_ND, theta[:-1])
            residual_NC = (logits_NC.sigmoid() - y_NC) * share_NC
            theta.grad = torch.empty_like(theta)
            theta.grad[:-1] = x_ND.T @ residual_NC + strength * theta[:-1]
            theta.grad[-1] = residual_NC.sum(0)
            loss = ((softplus(logits_NC) - y_NC * logits_NC) * share_NC).sum()
            return loss + 0.5 * strength * theta[:-1].square().sum()

        solver = torch.optim.LBFGS(
            [theta],
            max_iter=self.max_iter,
            tolerance_grad=self.tolerance,
            tolerance_change=0.0,
            history_size=20,
            line_search_fn="strong_wolfe",
        )
        solver.step(objective)  # type: ignore[no-untyped-call]
        objective()
        assert theta.grad is not None
        return theta, float(theta.grad.abs().max())


def teachable(labels_NC: Tensor) -> Tensor:
    """Which findings [C] have both a known positive and a known negative row."""
    return (labels_NC == 1).any(0) & (labels_NC == 0).any(0)


def _standardisation(features_ND: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation; a feature that is constant but for rounding is not scaled up."""
    if not len(features_ND):
        zero = features_ND.new_zeros(features_ND.shape[1])
        return zero, zero + 1.0
    mean_D, std_D = features_ND.mean(0), features_ND.std(0, correction=0)
    # features come from float32: a spread of a few of its units in the last place is rounding
    constant_D = std_D <= 1e-6 * mean_D.abs()
    return mean_D, torch.where(constant_D, 1.0, std_D)


def _log_loss(logits_NC: Tensor, y_NC: Tensor) -> float:
    """Mean over findings of the mean log-loss of known rows; NaN where none is known."""
    loss_NC = softplus(logits_NC) - y_NC * logits_NC
    return float(loss_NC.nanmean(0).nanmean())
