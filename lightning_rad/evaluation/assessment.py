"""What frozen features are worth: probes fitted on one split, scored on another.

Pure functions of the rows and the settings; nothing here knows of ranks, trainers or files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lightning_rad.evaluation.bootstrap import PatientBootstrap, clusters
from lightning_rad.evaluation.collapse import alignment, feature_std, rankme, uniformity
from lightning_rad.evaluation.grades import Grades, graded, name_of
from lightning_rad.evaluation.knn import NearestNeighbours
from lightning_rad.evaluation.linear import LinearProbe, teachable
from lightning_rad.evaluation.metrics import Discrimination, Measured, measure
from lightning_rad.evaluation.rows import Rows

HEADLINES = ("knn_auroc", "linear_auroc", "linear_ap")
"""The macro numbers that are logged."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one frozen encoder was found to be worth.

    strength, gradient: the linear probe's penalty, and the largest entry of its objective's
    gradient where the fit stopped. monitors: signs of collapse, on the scored images. knn_grades,
    linear_grades: of every grade that the probe was told of, what the scores are worth as one.
    """

    knn: Discrimination
    linear: Discrimination
    strength: float
    gradient: float
    monitors: dict[str, float]
    knn_grades: tuple[Grades, ...] = ()
    linear_grades: tuple[Grades, ...] = ()

    @property
    def metrics(self) -> dict[str, Measured]:
        """Every metric by name."""
        return {
            "knn_auroc": self.knn.auroc,
            "knn_ap": self.knn.ap,
            "linear_auroc": self.linear.auroc,
            "linear_ap": self.linear.ap,
        }


@dataclass(frozen=True, slots=True)
class Assessment:
    """The reading of a pretrained encoder, with that of a random-init one beside it.

    findings: names of the label columns. fit, score: the rows, whose labels give the counts.
    grades: columns of the levels of every grade.
    """

    findings: tuple[str, ...]
    fit: Rows
    score: Rows
    pretrained: Reading
    random: Reading | None
    grades: tuple[tuple[int, ...], ...] = ()

    @property
    def grade_names(self) -> tuple[str, ...]:
        """What every grade is called."""
        return tuple(name_of([self.findings[c] for c in columns]) for columns in self.grades)

    def gain(self, metric: str) -> Measured | None:
        """The metric of the pretrained encoder minus the random one's, paired; None without one."""
        if self.random is None:
            return None
        return self.pretrained.metrics[metric] - self.random.metrics[metric]

    def undefined(self, column: int) -> str:
        """Why a finding has no metric, or "" where it has one."""
        rows, positives = label_counts(self.score.labels)[:, column]
        if rows == 0:
            return "no label"
        if positives in (0, rows):
            return "one class"
        if not bool(teachable(self.fit.labels)[column]):
            return "one class to fit"
        return "not finite" if math.isnan(self.pretrained.linear.auroc.values[column]) else ""

    def values(self, stage: str) -> dict[str, float]:
        """What is logged: macro metrics, linear AUROC of each finding, monitors, random's macro.

        What the labels or images do not allow is left out, but for the macro metrics, which a
        checkpoint may watch: these are NaN.
        """
        macro = {f"{stage}/{name}": _macro(self.pretrained, name) for name in HEADLINES}
        if self.random is not None:
            macro |= {f"random/{name}": _macro(self.random, name) for name in HEADLINES}
        aurocs = self.pretrained.linear.auroc.values.tolist()
        rest = {
            f"{stage}/linear_auroc/{finding}": value
            for finding, value in zip(self.findings, aurocs, strict=True)
        }
        rest |= {f"{stage}/{name}": value for name, value in self.pretrained.monitors.items()}
        return (
            macro
            | self._grade_values(stage)
            | {name: value for name, value in rest.items() if not math.isnan(value)}
        )

    def _grade_values(self, stage: str) -> dict[str, float]:
        """Means over the grades and, where there are several, each grade's own."""
        logged = {
            f"{stage}/linear_accuracy": [g.accuracy for g in self.pretrained.linear_grades],
            f"{stage}/linear_mae": [g.mae for g in self.pretrained.linear_grades],
            f"{stage}/linear_kappa": [g.kappa for g in self.pretrained.linear_grades],
            f"{stage}/knn_accuracy": [g.accuracy for g in self.pretrained.knn_grades],
        }
        if self.random is not None:
            logged["random/linear_accuracy"] = [g.accuracy for g in self.random.linear_grades]
        values: dict[str, float] = {}
        for name, estimates in logged.items():
            if estimates:
                values[name] = sum(e.value for e in estimates) / len(estimates)
            if len(estimates) > 1:
                each = zip(self.grade_names, estimates, strict=True)
                values |= {f"{name}/{grade}": e.value for grade, e in each}
        return values


@dataclass(frozen=True, slots=True)
class Assessor:
    """The settings of both probes and of the intervals; `seed` fixes every draw they make.

    grades: columns of the labels that are levels of one grade, for every grade.
    """

    knn: NearestNeighbours
    linear: LinearProbe
    bootstrap: PatientBootstrap
    seed: int
    grades: tuple[tuple[int, ...], ...] = ()

    def read(self, fit_ND: Tensor, score_ND: Tensor, fit: Rows, score: Rows) -> Reading:
        """Fit both probes on the features of `fit`'s images, score those of `score`'s.

        A finding that the fitting rows cannot teach gets no score, hence no metric.
        """
        # a split without images does not know how wide features are
        fit_ND = fit_ND if len(fit_ND) else score_ND[:0]
        score_ND = score_ND if len(score_ND) else fit_ND[:0]
        votes = self.knn.scores(fit_ND, fit.labels, score_ND)
        votes = votes.masked_fill(~teachable(fit.labels), math.nan)
        fit_patient = clusters(fit.patient.cpu().numpy())
        head = self.linear.fit(fit_ND, fit.labels, fit_patient, seed=self.seed)
        log_odds = head.scores(score_ND)
        return Reading(
            knn=self._measure(votes, score),
            linear=self._measure(log_odds, score),
            strength=head.strength,
            gradient=head.gradient,
            monitors=_monitors(score_ND, score.patient),
            knn_grades=self._grade(votes, score),
            linear_grades=self._grade(log_odds, score),
        )

    def _grade(self, scores: Tensor, score: Rows) -> tuple[Grades, ...]:
        patient = score.patient.cpu().numpy()
        said, labels = scores.double().cpu().numpy(), score.labels.double().cpu().numpy()
        return tuple(
            graded(said[:, list(c)], labels[:, list(c)], patient, self.bootstrap, self.seed)
            for c in self.grades
        )

    def _measure(self, scores: Tensor, score: Rows) -> Discrimination:
        return measure(
            scores.cpu().numpy(),
            score.labels.double().cpu().numpy(),
            clusters(score.patient.cpu().numpy()),
            self.bootstrap,
            seed=self.seed,
        )


def label_counts(labels_NC: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """[2, C]: rows whose label is known, and positives."""
    counts = torch.stack([(~labels_NC.isnan()).sum(0), (labels_NC == 1).sum(0)])
    result: np.ndarray[tuple[int, int], np.dtype[np.int64]] = counts.cpu().numpy()
    return result


def _macro(reading: Reading, metric: str) -> float:
    return reading.metrics[metric].macro().value


def _monitors(features_ND: Tensor, patient_N: Tensor) -> dict[str, float]:
    group_N = torch.from_numpy(clusters(patient_N.cpu().numpy())).to(features_ND.device)
    return {
        "rankme": rankme(features_ND),
        "uniformity": uniformity(features_ND),
        "patient_alignment": alignment(features_ND, group_N),
        "feature_std": feature_std(features_ND),
    }
