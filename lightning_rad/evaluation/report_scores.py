"""What an objective knows of reports: retrieval, perplexity, and the findings that it writes.

Pure functions of the rows and the settings. Shape letters: N studies, C findings, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lightning_rad.evaluation.bootstrap import Estimate, Floats, Ints, PatientBootstrap
from lightning_rad.evaluation.retrieval import intervals, recall
from lightning_rad.evaluation.study_rows import StudyRows
from lightning_rad.modalities.mentions import mentioned


@dataclass(frozen=True, slots=True)
class Score:
    """A number with its interval, and the studies it is over."""

    estimate: Estimate
    studies: int


@dataclass(frozen=True, slots=True)
class Texts:
    """Reports in words, beside each other: of the studies `row` of the rows, [n]."""

    row: Tensor
    true: list[str]
    generated: list[str]


def score(
    rows: StudyRows,
    texts: Texts | None,
    findings: Sequence[str],
    words: Mapping[str, Sequence[str]] | None,
    bootstrap: PatientBootstrap,
    *,
    seed: int,
) -> dict[str, Score]:
    """Every number by name.

    `recall_...`: see `retrieval.recall`. Where reports are written, `perplexity`: e to the mean
    nats of a token. Where `words` say how findings are named, `finding_f1...`: see `f1`, of the
    generated texts; `true_f1` is the same of the true ones, the most that the words can give.
    findings: names of the label columns.
    """
    patient_N, n = rows.patient.cpu().numpy(), len(rows.unit)
    hits = recall(rows.image, rows.text, rows.hash)
    scores = {
        f"recall_{name}": Score(estimate, n)
        for name, estimate in intervals(hits, patient_N, bootstrap, seed=seed).items()
    }
    if rows.nll is not None and rows.tokens is not None:
        sums_N2 = np.stack([rows.nll.cpu().numpy(), rows.tokens.cpu().numpy()], 1).astype(float)
        (estimate,) = bootstrap.of_sums(sums_N2, patient_N, _perplexity, seed=seed)
        scores["perplexity"] = Score(estimate, n)
    if texts is None or words is None:
        return scores
    columns = [findings.index(name) for name in words]
    labels_NC = rows.labels[texts.row][:, columns].double().cpu().numpy()
    patient_N = rows.patient[texts.row].cpu().numpy()
    for measure, said in (("finding_f1", texts.generated), ("true_f1", texts.true)):
        named_NC = np.array([list(mentioned(text, words).values()) for text in said], np.float64)
        found = f1(named_NC, labels_NC, list(words), patient_N, bootstrap, seed=seed)
        scores |= {f"{measure}{name}": Score(value, len(said)) for name, value in found.items()}
    return scores


def f1(
    named_NC: Floats,
    labels_NC: Floats,
    findings: Sequence[str],
    patient_N: Ints,
    bootstrap: PatientBootstrap,
    *,
    seed: int,
) -> dict[str, Estimate]:
    """F1 of what texts name, 1 or 0, against labels, 1, 0 or NaN where unknown (not counted).

    `""`: the mean over the findings that some study has. `_micro`: over all pairs of study and
    finding at once. `_chance`: as the mean, if the same texts were dealt to the studies at random
    (then the expected pairs that agree are named x present / known). `/<finding>`: one by one, NaN
    where no study has it. A resample takes its means over the findings it defines.
    """
    known_NC = ~np.isnan(labels_NC)
    named_NC, present_NC = named_NC * known_NC, np.where(known_NC, labels_NC, 0.0)
    counts = [known_NC, named_NC, present_NC, named_NC * present_NC]
    sums_NK = np.concatenate(counts, axis=1, dtype=np.float64)
    estimates = bootstrap.of_sums(sums_NK, patient_N, _f1_of_sums, seed=seed)
    names = ["", "_micro", "_chance", *(f"/{finding}" for finding in findings)]
    return dict(zip(names, estimates, strict=True))


def _f1_of_sums(sums_RK: Floats) -> Floats:
    known_RC, named_RC, present_RC, both_RC = np.split(sums_RK, 4, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        each_RC = np.where(present_RC > 0, 2.0 * both_RC / (named_RC + present_RC), np.nan)
        dealt_RC = 2.0 * (named_RC * present_RC / known_RC) / (named_RC + present_RC)
        dealt_RC = np.where(present_RC > 0, dealt_RC, np.nan)
        micro_R = 2.0 * both_RC.sum(1) / (named_RC + present_RC).sum(1)
    means = [_mean_of_defined(each_RC), micro_R, _mean_of_defined(dealt_RC)]
    return np.concatenate([np.stack(means, axis=1), each_RC], axis=1)


def _mean_of_defined(values_RC: Floats) -> Floats:
    defined_RC = ~np.isnan(values_RC)
    with np.errstate(invalid="ignore"):
        means: Floats = np.where(defined_RC, values_RC, 0.0).sum(1) / defined_RC.sum(1)
    return means


def _perplexity(sums_R2: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        perplexity: Floats = np.exp(sums_R2[:, :1] / sums_R2[:, 1:])
    return perplexity
