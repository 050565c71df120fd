"""The 3,955 real reports of Open-i (Indiana University): what is parsed how. None is shown."""

import os
import tarfile
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import pytest

from lightning_rad.modalities.report import MARK, parse_report, sentences, swap_sides, text_hash
from lightning_rad.modalities.words import Words, train_words

DATA = os.environ.get("RAD_SAMPLE_DATA")
FILE = Path(DATA or "") / "openi_reports" / "NLMCXR_reports.tgz"
HOW = {"findings+impression": 3419, "impression": 502, "empty": 28, "findings": 6}
pytestmark = pytest.mark.skipif(
    not (DATA and FILE.is_file()),
    reason="needs real reports: set RAD_SAMPLE_DATA to the folder of openi_reports",
)


class Reports(list[list[tuple[str, str]]]):
    """The labelled parts of each report; a failing test does not print them."""

    def __repr__(self) -> str:
        return f"{len(self)} reports"


@pytest.fixture(scope="module")
def reports() -> Reports:
    found = Reports()
    with tarfile.open(FILE) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".xml") else None
            if file is not None:
                parts = ElementTree.parse(file).iter("AbstractText")
                found.append([(part.get("Label", ""), part.text or "") for part in parts])
    return found


def written(report: list[tuple[str, str]], between: str = "\n") -> str:
    return between.join(f"{label}: {text}" for label, text in report)


def test_every_report_is_read_as_its_labels_say(reports) -> None:
    parsed = [parse_report(written(report)) for report in reports]
    assert len(parsed) == 3955
    assert Counter(each.how for each in parsed) == HOW
    wrong = 0
    for report, each in zip(reports, parsed, strict=True):
        parts = dict(report)
        truth = [parse_report(parts[name]).text for name in ("FINDINGS", "IMPRESSION")]
        hidden = [" ".join(parts[name].split()) for name in ("COMPARISON", "INDICATION")]
        leaks = any(len(text) > 12 and text in each.text for text in hidden)
        wrong += leaks or each.text != " ".join(dict.fromkeys(filter(None, truth)))
    # the impression of one holds a whole report, with an indication of its own
    assert wrong <= 1, f"{wrong} of {len(parsed)} reports are not read as their labels say"


@pytest.mark.parametrize("between", [" ", "\n\n"])
def test_the_layout_of_a_report_changes_nothing(reports, between: str) -> None:
    for i, report in enumerate(reports):
        same = parse_report(written(report, between)).text == parse_report(written(report)).text
        assert same, f"report {i}"


def test_false_negatives_marks_and_sides_are_common(reports) -> None:
    texts = [text for r in reports if (text := parse_report(written(r)).text)]
    shared = Counter(map(text_hash, texts))
    assert len(shared) == 3156
    assert (sum(n for n in shared.values() if n > 1), max(shared.values())) == (927, 53)
    assert sum(MARK in text for text in texts) == 1855
    assert sum(swap_sides(text) != text for text in texts) == 1364
    assert all(swap_sides(swap_sides(text)) == text for text in texts)
    assert max(len(sentences(text)) for text in texts) < 40


def test_a_tokeniser_trained_on_them_reads_them_all(reports) -> None:
    texts = [text for r in reports if (text := parse_report(written(r)).text)]
    json = train_words(texts)
    assert json == train_words(texts)
    words = Words(json, limit=100, keep_end=False)
    assert 3000 < words.vocabulary < 4000
    ids = [words.encode(text) for text in texts]
    assert all((each != words.unknown).all() for each in ids)
    cut = sum(each[-1] != words.end for each in ids)
    assert 100 < cut < 200
