"""From bytes to tokens: what is read, mirrored, drawn, and why a report is refused."""

import time

import pytest

from lightning_rad.modalities.reading import LARGEST, Reading, ReadingSettings
from lightning_rad.modalities.report import text_hash
from lightning_rad.modalities.words import Words, train_words

REPORT = (
    "INDICATION: Cough.\nFINDINGS: Small LEFT effusion. 1. Right base clear. "
    "xxxx.\nIMPRESSION: Left effusion."
)
READ = "Small LEFT effusion. 1. Right base clear. xxxx. Left effusion."


@pytest.fixture(scope="module")
def trained() -> str:
    return train_words([READ, "no bright left-sided right"] * 2, vocabulary=200)


@pytest.fixture
def words(trained: str) -> dict[str, Words]:
    return {
        "caption": Words(trained, limit=100, keep_end=False),
        "text": Words(trained, limit=8, keep_end=True),
    }


def test_a_report_is_read_by_every_tokeniser(words: dict[str, Words]) -> None:
    reading = Reading(words, ReadingSettings("tokenizer.json"))
    read = reading(REPORT.encode(), flipped=False, draw=3)
    assert read.text == READ
    assert read.hash == text_hash(READ)
    assert {name: ids.tolist() for name, ids in read.tokens.items()} == {
        name: each.encode(READ).tolist() for name, each in words.items()
    }
    assert len(read.tokens["text"]) == 8
    assert reading.digests == {name: each.digest for name, each in words.items()}


def test_a_mirrored_study_swaps_its_sides_before_anything_is_counted(
    words: dict[str, Words],
) -> None:
    reading = Reading(words, ReadingSettings("tokenizer.json"))
    plain = reading(REPORT.encode(), flipped=False, draw=0)
    mirrored = reading(REPORT.encode(), flipped=True, draw=0)
    swapped = "Small RIGHT effusion. 1. Left base clear. xxxx. Right effusion."
    assert mirrored.text == swapped
    assert mirrored.hash == text_hash(swapped) != plain.hash
    caption = words["caption"]
    assert caption.decode(mirrored.tokens["caption"].tolist()) == swapped.lower()


def test_the_sections_are_those_of_the_settings(words: dict[str, Words]) -> None:
    reading = Reading(words, ReadingSettings("tokenizer.json", sections=("impression",)))
    assert reading(REPORT.encode(), flipped=False, draw=0).text == "Left effusion."


def test_one_sentence_is_drawn_by_the_number_and_none_of_marks_alone(
    words: dict[str, Words],
) -> None:
    reading = Reading(words, ReadingSettings("tokenizer.json", sentence=True))
    told = [reading(REPORT.encode(), flipped=False, draw=d).text for d in range(6)]
    assert told == ["Small LEFT effusion.", "Right base clear.", "Left effusion."] * 2
    large = reading(REPORT.encode(), flipped=True, draw=2**64 - 1)
    assert large.text == "Small RIGHT effusion."  # 2^64 - 1 is 0 modulo 3
    assert large.hash == text_hash("Small RIGHT effusion.")


def test_ten_thousand_words_become_the_limit_quickly(words: dict[str, Words]) -> None:
    reading = Reading(words, ReadingSettings("tokenizer.json"))
    report = ("FINDINGS: " + "Small left effusion. " * 3334).encode()
    took = []
    for _ in range(5):
        start = time.process_time()
        read = reading(report, flipped=True, draw=0)
        took.append(time.process_time() - start)
    assert {name: len(ids) for name, ids in read.tokens.items()} == {"caption": 100, "text": 8}
    assert min(took) < 0.05


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "nothing is left to read"),
        (b" \n\t", "nothing is left to read"),
        (b"XXXX ___ XXXX.", "nothing is left to read"),
        (b"COMPARISON: None.", "nothing is left to read"),
        (b"FINDINGS: clear \xe9", "not UTF-8: byte 16"),
        ("Clear.".encode("utf-16"), "not UTF-8"),
        (b"clear " * (LARGEST // 6 + 1), f"at most {LARGEST}"),
    ],
)
def test_a_report_that_cannot_be_read_is_refused_with_the_reason(
    words: dict[str, Words], data: bytes, reason: str
) -> None:
    for sentence in (False, True):
        reading = Reading(words, ReadingSettings("tokenizer.json", sentence=sentence))
        with pytest.raises(ValueError, match=reason):
            reading(data, flipped=False, draw=0)


def test_a_byte_order_mark_is_no_letter(words: dict[str, Words]) -> None:
    reading = Reading(words, ReadingSettings("tokenizer.json"))
    marked = reading(b"\xef\xbb\xbf" + REPORT.encode(), flipped=False, draw=0)
    assert marked.text == READ


@pytest.mark.parametrize(
    ("wrong", "key"),
    [
        ({"limit": 3}, "limit 3: accepted are 4 to 512"),
        ({"limit": 513}, "limit 513: accepted are 4 to 512"),
        ({"sections": ()}, "sections"),
        ({"sections": ("findings", " ")}, "sections"),
    ],
)
def test_settings_out_of_range_are_named(wrong: dict, key: str) -> None:
    with pytest.raises(ValueError, match=f"model.init_args.reports.{key}"):
        ReadingSettings("tokenizer.json", **wrong)
