"""Which identifiers are met in which texts, and which words are too common to be looked for."""

import pytest

from lightning_rad.sharding.privacy.codes import runs
from lightning_rad.sharding.privacy.identifier import Identifier, in_path
from lightning_rad.sharding.privacy.needles import Needles


def needles(*values, kind="patient", vocabulary=()):
    return Needles(
        [Identifier(f"line {n}", kind, v, f"owner {n}") for n, v in enumerate(values)], vocabulary
    )


def met(value, text, **how):
    return bool(list(needles(value, **how).find(text)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10000032", "files/p10/p10000032/s50414267"),
        ("10000032", "Patient 10000032."),
        ("Doe^Jane", "seen: DOE, Jane"),
        ("Müller", "Frau MÜLLER"),
        ("Mu\u0308ller", "M\u00fcller"),
        ("1.2.840.113619.2.55", "uid_1_2_840_113619_2_55.dcm"),
        ("00000001_000", "00000001_000.png"),
        ("02aa804e-bde0afdd-112c0b34", "x 02aa804e-bde0afdd-112c0b34.jpg"),
        ("f0e1d2c3b4a5968778695a4b3c2d1e0f", "id F0E1D2C3B4A5968778695A4B3C2D1E0F"),
        ("A-123", "patient A-123 was"),
        ("2019-03-04", "20190304 2019/03/04"),
    ],
)
def test_an_identifier_is_met_however_it_is_joined_to_others(value, text):
    assert met(value, text)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10000032", "110000032 100000321"),
        ("Smith", "Smithson and Blacksmith"),
        ("A-123", "XA-123 and A 123 and A-1234"),
        ("123456", " ".join("ab123456" * n for n in (2, 4, 8))),
        ("1.2.840.113619.2.55", "1.2.840.113619.2.56"),
    ],
)
def test_what_is_part_of_a_longer_word_or_of_a_hash_is_another(value, text):
    assert not met(value, text)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a1b", "fewer than 4 letters and digits"),
        ("12-34", "a number of fewer than 6 digits"),
        ("99999", "a number of fewer than 6 digits"),
        ("Lateral Edema", "a word of the set itself"),
    ],
)
def test_common_values_are_counted_by_reason_and_not_looked_for(value, reason):
    found = needles(value, vocabulary=["LATERAL", "Edema"])
    assert dict(found.common) == {reason: 1}
    assert not list(found.find(f"{value} lateral edema"))


@pytest.mark.parametrize(
    ("value", "kind", "looked_for"),
    [
        ("view1_frontal", "file", False),
        ("2012-03-04", "study", True),
        ("General Hospital", "InstitutionName", True),
    ],
)
def test_names_that_many_patients_have_are_common_unless_they_are_dates(value, kind, looked_for):
    assert (len(needles(value, value, kind=kind)) == 1) is looked_for
    assert len(needles(value, kind=kind)) == 1


def test_the_one_of_many_that_is_there_is_named():
    found = needles(*(f"1.2.840.{n}.7" for n in range(100_000, 101_000)))
    assert [found.needles[n].where for n in found.find("see 1.2.840.100123.7")] == ["line 123"]


def test_nothing_says_the_value():
    found = needles("Doe^Jane^1956", "10000032")
    assert "jane" not in repr(found.needles).lower()
    assert "10000032" not in repr(found.needles)
    assert "Doe" not in repr(Identifier("line 1", "patient", "Doe", "Doe"))


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        (
            "files/p10/p10000032/s50414267/02aa804e-bde0.jpg",
            {"files", "p10", "p10000032", "s50414267", "02aa804e-bde0"},
        ),
        ("a/1.2.840.113619.dcm", {"a", "1.2.840.113619"}),
        ("1.2.840.113619", {"1.2.840.113619"}),
        ("x\\7.png", {"x", "7", "x/7"}),
        ("report.txt.gz", {"report"}),
    ],
)
def test_a_path_is_looked_for_by_its_folders_and_its_name_without_suffix(path, parts):
    assert set(in_path(path)) == parts


def test_words_among_codes_are_found_from_eight_characters_on():
    code = b"\x00\xffAB-12_34\x01short12\x02p10000032.jpg\xfe" + b"12345678"
    assert runs(code, 8) == ["AB-12_34", "p10000032.jpg", "12345678"]
    assert runs(b"1234567", 8) == []
    assert runs(b"", 8) == []
