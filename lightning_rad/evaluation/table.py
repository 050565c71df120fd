"""An assessment for people (a table) and for programs (a JSON and a CSV file)."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lightning_rad.evaluation.assessment import Assessment, Reading, label_counts
from lightning_rad.evaluation.bootstrap import Estimate
from lightning_rad.manifest import write_atomically

_COLUMNS = ("finding", "n", "positives", "kNN AUROC", "linear AUROC", "linear AP")


def table(assessment: Assessment, title: str) -> Table:
    """One line a finding and a macro line; a finding without a metric says why."""
    result = Table(title=title, caption=summary(assessment), title_justify="left")
    random = assessment.random
    for column in _COLUMNS + (() if random is None else ("random-init linear AUROC",)):
        result.add_column(column, justify="left" if column == "finding" else "right")
    rows, positives = label_counts(assessment.score.labels)
    for c, finding in enumerate(assessment.findings):
        reason = assessment.undefined(c)
        cells = _cells(assessment.pretrained, random, c)
        result.add_row(
            finding,
            str(rows[c]),
            str(positives[c]),
            *([reason] + ["-"] * (len(cells) - 1) if reason else cells),
        )
    result.add_section()
    used = assessment.pretrained.linear.auroc.macro_findings
    result.add_row(
        f"macro of {used}",
        str(len(assessment.score.image)),
        "",
        *_cells(assessment.pretrained, random, None),
    )
    return result


def show(table: Table) -> None:
    """Print a table; where nobody looks (a log file), 140 columns wide."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table)


def summary(assessment: Assessment) -> str:
    """What stands below the table: the gain over random init, the monitors, the sizes."""
    lines = []
    gain = assessment.gain("linear_auroc")
    if gain is not None:
        lines.append(f"macro linear AUROC, encoder - random init: {interval(gain.macro(), '+')}")
    monitors = assessment.pretrained.monitors
    lines += _grades(assessment)
    lines.append(", ".join(f"{name} {value:.3g}" for name, value in monitors.items()))
    fit, score = len(assessment.fit.image), len(assessment.score.image)
    bootstrap = assessment.pretrained.linear.auroc.bootstrap
    lines.append(
        f"fitted on {fit} images, scored on {score}; {bootstrap.confidence:.0%} intervals over "
        f"{bootstrap.samples} resamples of the patients"
    )
    return "\n".join(lines)


def record(assessment: Assessment) -> dict[str, Any]:
    """Everything the assessment holds, as JSON values; null where a number is not defined."""
    fit, score = label_counts(assessment.fit.labels), label_counts(assessment.score.labels)
    findings = [
        {
            "finding": finding,
            "n": int(score[0, c]),
            "positives": int(score[1, c]),
            "fit_n": int(fit[0, c]),
            "fit_positives": int(fit[1, c]),
            "undefined": assessment.undefined(c) or None,
        }
        | _estimates(assessment, c)
        for c, finding in enumerate(assessment.findings)
    ]
    used = assessment.pretrained.linear.auroc.macro_findings
    kept = {"grades": _kept_grades(assessment)} if assessment.grades else {}
    return kept | {
        "findings": findings,
        "macro": {"findings": used} | _estimates(assessment, None),
        "pretrained": _diagnostics(assessment.pretrained),
        "random": None if assessment.random is None else _diagnostics(assessment.random),
        "images": {"fit": len(assessment.fit.image), "score": len(assessment.score.image)},
    }


def write(stem: Path, body: dict[str, Any]) -> None:
    """Write a record as `<stem>.json` and its estimates, one line a finding, as `<stem>.csv`."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(stem.with_suffix(".json"), (json.dumps(body, indent=1) + "\n").encode())
    lines = [_flat(finding) for finding in body["findings"]]
    macro = {name: value for name, value in body["macro"].items() if name != "findings"}
    lines.append(_flat({"finding": f"macro of {body['macro']['findings']}"} | macro))
    text = io.StringIO()
    fields = dict.fromkeys(name for line in lines for name in line)
    writer = csv.DictWriter(text, list(fields), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_atomically(stem.with_suffix(".csv"), text.getvalue().encode())


def plain(estimate: Estimate) -> dict[str, Any]:
    """An estimate as JSON values; null where it is not defined."""
    return {
        "value": _finite(estimate.value),
        "low": _finite(estimate.low),
        "high": _finite(estimate.high),
        "dropped": estimate.dropped,
    }


def interval(estimate: Estimate, sign: str = "") -> str:
    """An estimate as three decimals, with its interval where it has one; sign: "+" shows it."""
    ends = f" ({_number(estimate.low, sign)}, {_number(estimate.high, sign)})"
    return _number(estimate.value, sign) + ("" if math.isnan(estimate.low) else ends)


def _grades(assessment: Assessment) -> list[str]:
    """A line for every grade: what the linear probe is worth, then the others' accuracy."""
    lines = []
    for k, name in enumerate(assessment.grade_names):
        linear = assessment.pretrained.linear_grades[k]
        line = (
            f"{name}: linear accuracy {interval(linear.accuracy)}, off by {interval(linear.mae)}, "
            f"kappa {interval(linear.kappa)} on {linear.n} images, {linear.left_out} without a "
            f"grade; kNN accuracy {interval(assessment.pretrained.knn_grades[k].accuracy)}"
        )
        if assessment.random is not None:
            accuracy = assessment.random.linear_grades[k].accuracy
            line += f"; random-init linear accuracy {interval(accuracy)}"
        lines.append(line)
    return lines


def _kept_grades(assessment: Assessment) -> list[dict[str, Any]]:
    """Every number of every grade, of both probes and of the random-init encoder."""
    pretrained, random = assessment.pretrained, assessment.random
    readings = {"knn": pretrained.knn_grades, "linear": pretrained.linear_grades}
    if random is not None:
        readings |= {"random_knn": random.knn_grades, "random_linear": random.linear_grades}
    kept: list[dict[str, Any]] = []
    for k, name in enumerate(assessment.grade_names):
        levels = [assessment.findings[c] for c in assessment.grades[k]]
        entry: dict[str, Any] = {"grade": name, "levels": levels}
        for probe, grades in readings.items():
            entry |= {"n": grades[k].n, "left_out": grades[k].left_out}
            for number in ("accuracy", "mae", "kappa"):
                entry[f"{probe}_{number}"] = plain(getattr(grades[k], number))
        kept.append(entry)
    return kept


def _cells(reading: Reading, random: Reading | None, column: int | None) -> list[str]:
    metrics = [reading.metrics[name] for name in ("knn_auroc", "linear_auroc", "linear_ap")]
    metrics += [] if random is None else [random.linear.auroc]
    estimates = [m.macro() if column is None else m.finding(column) for m in metrics]
    return [_number(estimates[0].value), *(interval(e) for e in estimates[1:])]


def _estimates(assessment: Assessment, column: int | None) -> dict[str, Any]:
    """Every metric of the pretrained encoder, the random one, and their paired difference."""
    measured = dict(assessment.pretrained.metrics)
    if assessment.random is not None:
        for name, metric in assessment.random.metrics.items():
            measured[f"random_{name}"] = metric
            measured[f"gain_{name}"] = assessment.pretrained.metrics[name] - metric
    return {
        name: plain(m.macro() if column is None else m.finding(column))
        for name, m in measured.items()
    }


def _diagnostics(reading: Reading) -> dict[str, Any]:
    probe = {"linear_strength": reading.strength, "linear_gradient": _finite(reading.gradient)}
    return probe | {name: _finite(value) for name, value in reading.monitors.items()}


def _flat(line: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in line.items():
        if isinstance(value, dict):
            flat |= {name if k == "value" else f"{name}_{k}": v for k, v in value.items()}
        else:
            flat[name] = value
    return flat


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _number(value: float, sign: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{sign}.3f}"
