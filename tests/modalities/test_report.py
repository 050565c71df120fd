"""Sections, sentences, sides and hashes of reports."""

import hashlib
import itertools
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_rad.modalities.report import (
    LONGEST,
    NOTE_END,
    distinct_texts,
    parse_report,
    sentences,
    swap_sides,
    text_hash,
)

BODY = {
    "COMPARISON": "Film of last year.",
    "INDICATION": "Cough for a week.",
    "TECHNIQUE": "Two views.",
    "FINDINGS": "Small left effusion.\nHeart: normal size.",
    "IMPRESSION": "1. Effusion.\n2. Nothing else.",
}
READ = "Small left effusion. Heart: normal size. 1. Effusion. 2. Nothing else."
MARKS = ("XXXX", "___", "[**Name (NI) 12**]", "***", "xxx")


def lines(names, case=str) -> str:
    return "\n".join(f"{case(name)}: {BODY[name]}" for name in names)


@pytest.mark.parametrize("case", [str, str.title, str.lower, "  {}".format, "{} ".format])
def test_sections_are_found_in_any_order_and_case(case) -> None:
    for order in itertools.permutations(BODY):
        parsed = parse_report(lines(order, case))
        assert (parsed.text, parsed.how) == (READ, "findings+impression")
        assert set(parsed.sections) == {name.lower() for name in BODY}
        assert parsed.sections["comparison"] == "Film of last year."


@pytest.mark.parametrize("case", [str, str.title])
@pytest.mark.parametrize("apart", ["\n\n", "\r\n", " "])
def test_sections_may_stand_in_one_line_or_apart(apart, case) -> None:
    text = apart.join(f"{case(name)}:{apart}{body}" for name, body in BODY.items())
    assert parse_report(text).text == READ


def test_headers_alone_on_a_line_need_no_colon_where_they_are_in_capitals() -> None:
    text = "FINAL REPORT\nCLINICAL HISTORY\nCough.\nFINDINGS\n\nClear.\n\nIMPRESSION\nNormal."
    assert parse_report(text).text == "Clear. Normal."
    text = "FINDINGS: no change of\nthe first impression\nis seen."
    assert parse_report(text).text == "no change of the first impression is seen."


@pytest.mark.parametrize(
    ("text", "read", "how"),
    [
        (lines(["INDICATION", "FINDINGS"]), READ.partition(" 1.")[0], "findings"),
        (lines(["IMPRESSION", "COMPARISON"]), "1. Effusion. 2. Nothing else.", "impression"),
        ("FINDINGS: Clear.\nIMPRESSION:", "Clear.", "findings"),
        ("FINDINGS: XXXX.\nIMPRESSION: Clear.", "Clear.", "impression"),
        ("CONCLUSION: Clear.", "Clear.", "impression"),
        ("Opinion: Clear.", "Clear.", "impression"),
        ("FINDINGS/IMPRESSION: Clear.", "Clear.", "impression"),
        ("The lungs\n are clear.", "The lungs are clear.", "whole"),
        ("Heart: normal.\nLungs: clear.", "Heart: normal. Lungs: clear.", "whole"),
        ("A first one.\n\nThe  lungs are clear.", "The lungs are clear.", "last paragraph"),
        ("HISTORY: Cough.\nMore.\n\nLungs clear.", "Lungs clear.", "last paragraph"),
        ("EXAM:\n\nChest.\n\nLungs clear.", "Lungs clear.", "last paragraph"),
        ("Lungs clear.\n\nREASON FOR EXAM: cough.", "Lungs clear.", "last paragraph"),
        ("EXAM: chest.\nCHEST, PA: Clear.", "CHEST, PA: Clear.", "last paragraph"),
        (lines(["COMPARISON", "INDICATION", "TECHNIQUE"]), "", "empty"),
        ("FINDINGS:\nIMPRESSION:", "", "empty"),
        (" \n\n ", "", "empty"),
        ("", "", "empty"),
        (" ".join(MARKS) + ". -", "", "empty"),
    ],
)
def test_what_is_read_where_something_is_missing(text, read, how) -> None:
    parsed = parse_report(text)
    assert (parsed.text, parsed.how) == (read, how)


LEFT_OUT = [
    *("COMPARISON", "COMPARISON(S)", "Comparisons", "HISTORY", "CLINICAL INFORMATION", "TECHNIQUE"),
    *("PAST MEDICAL HISTORY", "INDICATION", "EXAM", "Examination", "REASON FOR EXAM", "PROCEDURE"),
    *("DATE OF EXAM", "STUDY INDICATION", "NOTIFICATION"),
]


@pytest.mark.parametrize("header", LEFT_OUT)
def test_what_is_left_out_is_never_read(header) -> None:
    hidden = f"{header}: secret."
    for text in (
        f"{hidden}\nFINDINGS: Clear.\nIMPRESSION: Normal.",
        f"FINDINGS: Clear.\n{hidden}\nIMPRESSION: Normal.",
        f"FINDINGS: Clear.\n\nIMPRESSION: Normal.\n\n{hidden}",
        f"FINDINGS: Clear. {hidden.upper()} IMPRESSION: Normal.",
        hidden,
    ):
        parsed = parse_report(text)
        assert "secret" not in parsed.text.lower()
        assert parsed.text == ("Clear. Normal." if "FINDINGS" in text else "")
        assert "secret" in " ".join(parsed.sections.values()).lower()


def test_a_name_in_the_running_text_hides_no_header_after_it() -> None:
    for words in ("History of cough", "Reason for exam", "smoking history", "impression of mass"):
        text = f"INDICATION: {words} FINDINGS: Clear. IMPRESSION: Normal."
        assert parse_report(text).text == "Clear. Normal."
    told = "FINDINGS: Clear on comparison with the film: same. Exam of the heart: normal."
    assert parse_report(told).text == told.removeprefix("FINDINGS: ")


def test_the_chosen_sections_are_read_in_the_chosen_order() -> None:
    text = lines(BODY)
    assert parse_report(text, ["impression"]).text == "1. Effusion. 2. Nothing else."
    assert parse_report(text, ["conclusion"]).how == "impression"
    assert parse_report(text, ["impression", "findings"]).how == "impression+findings"
    assert parse_report(text, ["technique", "findings"]).text.startswith("Two views. Small")
    assert parse_report("WET READ: Clear.\nOTHER: x", ["wet read"]).how == "wet read"
    assert parse_report("LUNGS: Clear.\nHEART: Big.", ["heart", "lungs"]).text == "Big. Clear."


def test_copies_of_a_report_are_read_once() -> None:
    once = lines(["FINDINGS", "IMPRESSION"])
    again = once.upper().replace("YEAR", "  year")
    assert parse_report(f"{once}\n\n{again}\n\n{once}") == parse_report(once)
    assert parse_report("FINDINGS: Clear.\nIMPRESSION: CLEAR.").text == "Clear."
    assert parse_report("Lungs clear.\n\nlungs  clear.").how == "whole"


@pytest.mark.parametrize(
    ("notes", "read", "how"),
    [
        (["Clear.", "Worse."], "Clear. Worse.", "whole"),
        (["Clear.", " ", "clear."], "Clear.", "whole"),
        (["A.\n\nB.", "C."], "B. C.", "last paragraph, whole"),
        (["C.", "FINDINGS: A. IMPRESSION: B."], "C. A. B.", "whole, findings+impression"),
        (["FINDINGS: A.\nCOMPARISON: D.", "C."], "A. C.", "findings, whole"),
        (["COMPARISON: D.", "FINDINGS: ___."], "", "empty"),
    ],
)
def test_notes_kept_apart_are_read_each_by_itself(notes, read, how) -> None:
    parsed = parse_report(NOTE_END.join(notes))
    assert (parsed.text, parsed.how) == (read, how)


def test_sections_of_several_notes_are_those_of_all() -> None:
    parsed = parse_report(NOTE_END.join(["FINDINGS: A.", "FINDINGS: B. IMPRESSION: C.", "C."]))
    assert parsed.sections == {"findings": "A. B.", "impression": "C."}
    assert parsed.text == "A. B. C. C."


def test_marks_of_deidentification_are_one_word_and_split_no_sentence() -> None:
    text = "Mass on {} film of {}. {}-year-old by Dr. {}."
    told = {
        (parsed.text, text_hash(parsed.text), len(sentences(parsed.text)))
        for parsed in (parse_report(text.format(m, m, m, m)) for m in MARKS)
    }
    assert len(told) == 1
    ((read, _, number),) = told
    assert read == "Mass on xxxx film of xxxx. xxxx-year-old by Dr. xxxx."
    assert number == 2
    assert len({text_hash(text.format(m, m, m, m)) for m in MARKS}) == 1
    assert parse_report("___F with cough").text == "xxxx F with cough"
    assert parse_report("Exxxon, T_1, 2*3").text == "Exxxon, T_1, 2*3"


def test_a_long_report_is_read_up_to_its_bound() -> None:
    parsed = parse_report("a " * LONGEST)
    assert len(parsed.text) == LONGEST - 1


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("Clear. Normal heart.", ["Clear.", "Normal heart."]),
        ("A 3.5 cm nodule. no effusion", ["A 3.5 cm nodule.", "no effusion"]),
        ("Told to Dr. XXXX at 3 p.m. by phone.", ["Told to Dr. XXXX at 3 p.m. by phone."]),
        ("Lines (e.g. a tube) end. Stop!", ["Lines (e.g. a tube) end.", "Stop!"]),
        ("1. Effusion. 2. 3.5 cm mass. 3) Other.", ["Effusion.", "3.5 cm mass.", "Other."]),
        ("It measures 3. Next.", ["It measures 3.", "Next."]),
        ("Is it? (It is.) \n Done", ["Is it?", "(It is.)", "Done"]),
        ("  ", []),
        ("1.", []),
    ],
)
def test_sentences_end_where_they_end(text, parts) -> None:
    assert sentences(text) == parts


SIDED = (
    "left Right LEFT lEft bright cleft leftover left-sided rightward upright bilateral L/R no . "
)
WORDS = st.sampled_from([*SIDED.split(), "(left)", "left_right", "Leftmost", "RIGHTWARDS"])
TEXT = st.lists(st.one_of(WORDS, st.text(max_size=5))).flatmap(
    lambda parts: st.sampled_from([" ".join(parts), "".join(parts)])
)


@given(TEXT)
def test_swapped_twice_a_text_is_itself(text: str) -> None:
    assert swap_sides(swap_sides(text)) == text


@given(TEXT)
def test_a_text_without_a_word_of_side_is_not_changed_and_one_with_it_is(text: str) -> None:
    sided = re.search(r"(?<![^\W_])(left|right)(wards?|most)?(?![^\W_])", text, re.I)
    if not sided:
        assert swap_sides(text) == text
    assert swap_sides(text + " left") == swap_sides(text) + " right"


def test_whole_words_of_side_change_places_and_keep_their_case() -> None:
    text = "Left lung, LEFT base, a right-sided tube (right), leftward shift; rightmost rib"
    swapped = "Right lung, RIGHT base, a left-sided tube (left), rightward shift; leftmost rib"
    assert swap_sides(text) == swapped
    same = "bright cleft leftover bilateral upright L R lEfT aright"
    assert swap_sides(same) == same


@given(st.text(max_size=8), st.text(max_size=8))
def test_hashes_are_equal_where_the_texts_are_but_for_case_and_spaces(one: str, two: str) -> None:
    def normal(text: str) -> list[str]:
        return re.sub(r"_{2,}|\*{3,}", "xxxx", text).casefold().split()

    assert (text_hash(one) == text_hash(two)) == (normal(one) == normal(two))
    assert text_hash(f" {one.upper()}\n{one}") == text_hash(f"{one.upper()}  {one} ")
    assert -(2**63) <= text_hash(one) < 2**63
    assert text_hash(one) != 0


def test_a_hash_is_the_same_in_every_process() -> None:
    assert text_hash("No  pleural EFFUSION.") == text_hash("no pleural effusion.")
    digest = hashlib.blake2b(b"no pleural effusion.", digest_size=8).digest()
    assert text_hash("no pleural effusion.") == int.from_bytes(digest, "little", signed=True)


def test_no_hash_is_0_which_says_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    class Zero:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def digest(self) -> bytes:
            return bytes(8)

    monkeypatch.setattr(hashlib, "blake2b", Zero)
    assert text_hash("clear") == 1


@pytest.mark.parametrize(
    "part", ["!", "e.g. ", "\n", " ", "A, ", "past ", "exam" + 99 * " ", "[**", "FINDINGS ", ")."]
)
def test_no_text_takes_long(part: str) -> None:
    text = part * (LONGEST // len(part))
    start = time.process_time()
    parse_report(text)
    sentences(text)
    text_hash(swap_sides(text))
    assert time.process_time() - start < 3


def test_distinct_texts_keeps_the_first_of_each() -> None:
    copies = [f"Seen  by {mark}." for mark in MARKS]
    assert distinct_texts([*copies, "Other", "OTHER ", "seen BY xxxx."]) == [copies[0], "Other"]
    assert distinct_texts([]) == []
