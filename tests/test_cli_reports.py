"""`lightning-rad reports`: counts and tokenisers, and never a word of a report."""

import json
import re
from pathlib import Path

import pytest

from lightning_rad.data.corpus import report_texts
from lightning_rad.modalities.report import parse_report
from lightning_rad.modalities.words import Words, train_words
from lightning_rad.sharding import index
from tests.command import lightning_rad
from tests.sharding.test_foreign import study, write_shards

REPORTS = [
    b"FINDINGS: Zebra effusion.\nIMPRESSION: Zebra.",
    b"FINDINGS: zebra  EFFUSION.\nIMPRESSION: zebra.",
    b"IMPRESSION: Zebra nodule.",
    b"First.\n\nZebra paragraph.",
    b"COMPARISON: zebra.",
    b"FINDINGS: Zebra \xe9.",
    b"x" * ((1 << 20) + 1),
    b"",
]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed") / "w"
    write_shards(
        folder,
        [study(n, **({"txt": text} if text else {})) for n, text in enumerate(REPORTS)],
    )
    index(folder)
    return folder


def said(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert not re.search("zebra|effusion|nodule|clear", text, re.IGNORECASE)
    return text


def test_count_says_how_each_report_was_read_and_why_some_were_not(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lightning_rad("reports", "count", str(mixed))
    told = said(capsys)
    rows = dict(re.findall(r"│ (\S[^│]*?) +│ +(\d+) │", told))
    assert rows == {
        "findings+impression": "2",
        "impression": "1",
        "last paragraph": "1",
        "empty": "1",
        "not UTF-8": "1",
        "above 1 MiB": "1",
        "no report": "1",
    }
    assert "12.50%" in told
    assert "3 distinct texts; 2 studies share theirs with another, at most 2 the same" in told
    assert "words a report: median 2, 90 % 3, 99 % 3, largest 3" in told
    assert "tokens" not in told
    lightning_rad("reports", "count", str(mixed), "--sections", "[findings]")
    assert dict(re.findall(r"│ (\S[^│]*?) +│ +(\d+) │", said(capsys)))["findings"] == "2"


def test_a_tokeniser_learns_from_the_train_split_alone_and_twice_the_same(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = tmp_path / "deep" / "a.json", tmp_path / "b.json"
    for file in files:
        lightning_rad(
            *("reports", "tokenizer", str(tiny_shards)),
            *("--out", str(file), "--vocabulary", "300"),
        )
    assert files[0].read_bytes() == files[1].read_bytes()
    train = [parse_report(data.decode()).text for _, data in report_texts([tiny_shards])]
    assert files[0].read_text() == train_words(train, vocabulary=300)
    words = Words.read(str(files[0]), limit=100, keep_end=False)
    told = said(capsys)
    assert f"{words.vocabulary} tokens of 300 asked for, from {len(train)} reports" in told
    assert words.digest in told
    unseen = len(list(report_texts([tiny_shards], split="val")))
    assert re.search(rf"unknown: \d+ of \d+ tokens \(.*%\) in {unseen} reports of the val", told)
    lightning_rad("reports", "count", str(tiny_shards), "--tokenizer", str(files[0]))
    assert re.search(r"tokens a report: median \d+, 90 % \d+, 99 % \d+, largest \d+", said(capsys))


def test_several_sets_are_learned_from_together_and_settings_are_obeyed(
    tiny_shards: Path, mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "t.json"
    command = ("reports", "tokenizer", str(tiny_shards), str(mixed), "--out", str(out))
    lightning_rad(*command, "--vocabulary", "3000", "--least", "1", "--sections", "[impression]")
    assert "tokens of 3000 asked for" in said(capsys)
    learned = json.loads(out.read_text())["model"]["vocab"]
    assert "▁zebra" in learned
    assert "▁paragraph" in learned  # the last resort of a report without an impression
    lightning_rad(*command[:3], *command[4:], "--overwrite", "true")
    assert "▁zebra" not in json.loads(out.read_text())["model"]["vocab"]


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        lightning_rad("reports", *arguments)
    assert ended.value.code == 2
    text = said(capsys)
    assert text.count("\n") == 1
    return text


def test_what_cannot_be_done_is_one_line(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "t.json"
    there.write_text("mine")
    make = ("tokenizer", str(tiny_shards), "--out", str(there))
    assert "t.json: is already there; --overwrite true" in refusal(capsys, *make)
    assert there.read_text() == "mine"
    lightning_rad("reports", *make, "--overwrite", "true", "--vocabulary", "200")
    assert there.read_text() != "mine"
    capsys.readouterr()
    bare = tmp_path / "bare"
    write_shards(bare, [study(0)])
    index(bare)
    told = refusal(capsys, "tokenizer", str(bare), "--out", str(tmp_path / "n.json"))
    assert "bare: no study of the train split has a report" in told
    assert not (tmp_path / "n.json").exists()
    assert "no such manifest" in refusal(capsys, "count", str(tmp_path / "gone"))
    assert "split 'trian'" in refusal(capsys, "count", str(tiny_shards), "--split", "trian")
    gone = refusal(capsys, "count", str(tiny_shards), "--tokenizer", str(tmp_path / "x.json"))
    assert "x.json: no such tokenizer" in gone
    low = ("tokenizer", str(tiny_shards), "--out", str(tmp_path / "n.json"), "--vocabulary", "2")
    assert "accepted are" in refusal(capsys, *low)
