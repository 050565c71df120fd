"""What was measured on reports, for people (a table, a sample) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from lightning_rad.evaluation.bootstrap import PatientBootstrap
from lightning_rad.evaluation.report_scores import Score
from lightning_rad.evaluation.retrieval import KS
from lightning_rad.evaluation.table import interval, plain

SAMPLE_COLUMNS = ["study", "true", "generated"]


def report_table(scores: Mapping[str, Score], title: str, bootstrap: PatientBootstrap) -> Table:
    """One line a number, with the studies it is over and, where there is one, chance."""
    table = Table(title=title, caption=_caption(bootstrap), title_justify="left")
    for column in ("measure", "n", "value", "chance"):
        table.add_column(column, justify="left" if column == "measure" else "right")
    for name, label, chance in _lines(scores):
        beside = scores.get(chance)
        table.add_row(
            label,
            str(scores[name].studies),
            interval(scores[name].estimate),
            "" if beside is None else interval(beside.estimate),
        )
    return table


def report_record(scores: Mapping[str, Score]) -> dict[str, Any]:
    """Every number as JSON values; null where it is not defined."""
    return {
        "measures": {
            name: {"n": score.studies} | plain(score.estimate) for name, score in scores.items()
        }
    }


def report_line(epoch: int, values: Mapping[str, float]) -> str:
    """One line for the progress of a fit, from what is logged."""
    k = KS[-1]
    line = (
        f"epoch {epoch}: recall@{k} image to report {values[f'val/recall_i2t@{k}']:.3f}, back "
        f"{values[f'val/recall_t2i@{k}']:.3f} (chance {values[f'val/recall_chance@{k}']:.3f})"
    )
    for name, shown in (("perplexity", "perplexity"), ("finding_f1", "finding F1")):
        if f"val/{name}" in values:
            line += f", {shown} {values[f'val/{name}']:.3f}"
    return line


def sample_text(sample: Sequence[Sequence[str]], heading: str) -> str:
    """The rows of a sample (`SAMPLE_COLUMNS`), one below the other."""
    blocks = [f"study {study}\n  true:      {a}\n  generated: {b}" for study, a, b in sample]
    return "\n\n".join([heading, *blocks]) + "\n"


def _lines(scores: Mapping[str, Score]) -> list[tuple[str, str, str]]:
    """(name, how it is called, name of its chance) of what is shown."""
    lines = [
        (f"recall_{way}@{k}", f"recall@{k}, {called}", f"recall_chance@{k}")
        for way, called in (("i2t", "image to report"), ("t2i", "report to image"))
        for k in KS
    ]
    lines += [
        ("perplexity", "perplexity of a report's tokens", ""),
        ("finding_f1", "finding F1 of generated reports, macro", "finding_f1_chance"),
        ("finding_f1_micro", "finding F1 of generated reports, micro", ""),
    ]
    lines += [(n, f"  {n.split('/', 1)[1]}", "") for n in scores if n.startswith("finding_f1/")]
    lines += [("true_f1", "finding F1 of the true reports, macro", "")]
    return [line for line in lines if line[0] in scores]


def _caption(bootstrap: PatientBootstrap) -> str:
    return (
        "a hit is any report of the same text; the pool is all studies, and fixed\n"
        f"{bootstrap.confidence:.0%} intervals over {bootstrap.samples} resamples of the patients"
    )
