"""What a report says is what the body has: read back by a parser that knows no template."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pytest

from lightning_rad.sharding.sources.synthetic.findings import LABELS, Finding, courses
from lightning_rad.sharding.sources.synthetic.report import write_report

WORDS = {
    "atelectasis": r"atelecta",
    "cardiomegaly": r"cardiomegaly|heart|cardiac silhouette",
    "consolidation": r"consolidation",
    "edema": r"edema",
    "effusion": r"effusion|pleural fluid",
    "nodule": r"nodule",
    "pneumothorax": r"pneumothorax",
}
DENIAL = r"\bno\b|\bnot\b|\bfree of\b|\bwithout\b|\bresolved\b|heart size is normal"
SIZES = {"small": 0, "mild": 0, "moderate": 1, "large": 2, "severe": 2}


def claims(report: str) -> tuple[set[tuple[str, str]], set[str]]:
    """(label, side) said to be there, side being "" where none is told; labels denied."""
    there, denied = set(), set()
    body = report.partition("FINDINGS:")[2].replace("IMPRESSION:", "")
    for sentence in re.split(r"(?<=[.])\s+", body.lower()):
        for label, pattern in WORDS.items():
            if not re.search(pattern, sentence):
                continue
            if re.search(DENIAL, sentence):
                denied.add(label)
                continue
            sides = {s for s in ("right", "left") if re.search(rf"\b{s}\b", sentence)}
            if re.search(r"bilateral|both (lungs|sides)", sentence):
                sides = {"right", "left"}
            there |= {(label, side) for side in sides or {""}}
    return there, denied


def contradiction(report: str, findings: Sequence[Finding]) -> str | None:
    """What the report says that is not so, or fails to say; None where it is true."""
    there, denied = claims(report)
    truth = {(f.label, {-1: "right", 0: "", 1: "left"}[f.side]) for f in findings}
    if there != truth:
        return f"said {sorted(there)}, has {sorted(truth)}"
    wrong = denied & {f.label for f in findings}
    return f"denied {wrong}" if wrong else None


def reports(n: int) -> list[tuple[str, tuple[Finding, ...]]]:
    out = []
    for i in range(n):
        course = courses(np.random.default_rng([21, i]), 2)
        rng = np.random.default_rng([22, i])
        out.append((write_report(rng, course[0], None, ["PA"], []), course[0]))
        out.append((write_report(rng, course[1], course[0], ["PA", "LATERAL"], []), course[1]))
    return out


def test_a_report_tells_every_finding_with_its_side_and_denies_none_that_is_there() -> None:
    for report, findings in reports(500):
        assert contradiction(report, findings) is None, report


@pytest.mark.parametrize(
    ("old", "new"), [("left", "right"), ("There is (?!no )", "There is no "), ("No ", "A ")]
)
def test_a_planted_contradiction_is_caught(old: str, new: str) -> None:
    touched = [(r, f) for r, f in reports(100) if re.search(old, r.partition("FINDINGS:")[2])]
    lies = []
    for report, findings in touched:
        head, mark, body = report.partition("FINDINGS:")
        lies.append(contradiction(head + mark + re.sub(old, new, body), findings) is not None)
    assert len(lies) > 20
    # a sentence that both readings leave true (both sides, "no evidence of") may stay unnoticed
    assert np.mean(lies) > 0.8


def test_told_sizes_are_those_of_the_findings() -> None:
    for report, findings in reports(200):
        text = report.lower()
        for f in findings:
            if f.label == "pneumothorax":
                told = re.findall(r"(small|moderate|large)(?= \w*\s*pneumothorax)", text)
                assert all(SIZES[word] == min(int(3 * f.grade), 2) for word in told)
            if f.label == "nodule":
                told = re.findall(r"([\d.]+) cm", text)
                assert told
                assert all(float(cm) == pytest.approx(2.3 + 0.7 * f.grade, abs=0.06) for cm in told)


def test_the_zone_that_is_told_is_the_zone_of_the_lesion() -> None:
    for report, findings in reports(200):
        for f in findings:
            if f.label in ("nodule", "consolidation"):
                for sentence in re.split(r"(?<=[.])\s+", report.lower()):
                    if WORDS[f.label] in sentence and not re.search(DENIAL, sentence):
                        zone = re.search(r"\b(upper|mid|lower)", sentence)
                        assert zone is not None
                        assert zone.group(1) == f.zone


def test_reports_have_several_sentences_denials_and_varied_words() -> None:
    texts = [report for report, _ in reports(200)]
    assert np.mean([text.count(".") >= 4 for text in texts]) > 0.95
    assert np.mean([bool(re.search(DENIAL, text.lower())) for text in texts]) > 0.95
    assert len(set(texts)) > 0.97 * len(texts)
    for label in LABELS:
        said = {
            s
            for text in texts
            for s in re.split(r"(?<=[.])\s+", text.partition("FINDINGS:")[2])
            if re.search(WORDS[label], s.lower())
        }
        assert len(said) >= 8, label


def test_a_first_study_compares_with_nothing_and_no_brace_is_left() -> None:
    for text, _ in reports(100):
        assert not re.search(r"[{}]|  |\.\.", text)
        if "Comparison: none" in text:
            assert not re.search(r"prior study|[Pp]reviously", text)


def test_views_and_devices_are_named() -> None:
    text = write_report(np.random.default_rng(0), (), None, ["AP"], ["endotracheal tube"])
    assert "Portable AP view of the chest" in text
    assert "An endotracheal tube is" in text
