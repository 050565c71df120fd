"""What is no radiograph is refused with a reason; of a header only the allowed words are kept."""

from dataclasses import fields

import pytest

from lightning_rad.modalities.dicom import DicomSettings, decode_dicom, read_header
from lightning_rad.modalities.radiograph import UnreadableImageError
from tests.modalities.dicom.files import dicom, header, ramp, written

REFUSED = {
    "wrong modality: CT, accepted are CR, DX": {"Modality": "CT"},
    "wrong modality: MG, accepted": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.2"},
    "wrong modality: unknown, accepted": {"Modality": "JANEDOE"},
    "wrong modality: none, accepted": {"Modality": ""},
    "wrong modality: SR, accepted": {"Modality": "SR", "Rows": None, "Columns": None},
    "wrong modality: PR, accepted": {"Modality": "PR", "Rows": None, "Columns": None},
    "no pixel data: an encapsulated document": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.104.1"},
    "no pixel data: a header without Rows": {"Rows": None},
    "secondary capture: accepted where": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
    "unprocessed image: accepted where": {"PresentationIntentType": "FOR PROCESSING"},
    "multi-frame: 3 frames, accepted is 1": {"NumberOfFrames": 3},
    "wrong channels: a colour": {"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3},
    "wrong channels: a colour picture": {"PhotometricInterpretation": "PALETTE COLOR"},
    "wrong depth: 32 bits, up to bit 31, of 32": {
        "BitsAllocated": 32,
        "BitsStored": 32,
        "HighBit": 31,
    },
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_no_radiograph_is_refused_before_and_after_its_pixels_are_read(reason, tmp_path):
    values = ramp()
    data = written(header(values, bits=12, **REFUSED[reason]), values)
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(UnreadableImageError) as caught:
        decode_dicom(data, DicomSettings())
    assert str(caught.value).startswith(reason)
    with pytest.raises(UnreadableImageError) as early:
        read_header(tmp_path / "x", DicomSettings())
    assert str(early.value) == str(caught.value)


def test_settings_accept_what_they_name():
    values = ramp()
    cases = {
        "secondary_capture": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, True),
        "for_processing": ({"PresentationIntentType": "FOR PROCESSING"}, True),
        "modalities": ({"Modality": "RF"}, ["CR", "RF"]),
    }
    for key, (tags, value) in cases.items():
        decode_dicom(dicom(values, **tags), DicomSettings(**{key: value}))
    endoscopy = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.1"}
    decode_dicom(dicom(values, **endoscopy), DicomSettings())  # its UID begins like a capture's


def test_a_header_without_pixels_and_a_file_that_is_none_are_told_apart(tmp_path):
    data = dicom(ramp())
    start = data.index(b"\xe0\x7f\x10\x00")
    with pytest.raises(UnreadableImageError, match=r"^no pixel data: a header alone$"):
        decode_dicom(data[:start], DicomSettings())
    (tmp_path / "x").write_bytes(b"patient,finding\n")
    with pytest.raises(UnreadableImageError, match=r"^not an image: no DICOM file$"):
        read_header(tmp_path / "x", DicomSettings())


def test_a_header_keeps_the_allowed_words_and_hides_who_it_is(tmp_path):
    tags = {
        "AccessionNumber": "A77",
        "PatientBirthDate": "19500101",
        "InstitutionName": "Mercy",
        "PatientSex": "F",
        "PatientAge": "093Y",
        "ViewPosition": "LL",
        "BodyPartExamined": "CHEST",
        "ImageLaterality": "L",
        "PixelSpacing": [0.2, 0.1],
    }
    stored = decode_dicom(dicom(ramp(), **tags), DicomSettings())
    (tmp_path / "x").write_bytes(dicom(ramp(), **tags))
    assert read_header(tmp_path / "x", DicomSettings()) == stored.header
    kept = stored.header
    assert (kept.patient_id, kept.study_uid, kept.series_uid) == ("P1", "1.2.3", "1.2.3.4")
    assert (kept.instance_uid, kept.accession) == ("1.2.3.4.5", "A77")
    assert (kept.view, kept.laterality, kept.body_part) == ("LATERAL", "L", "CHEST")
    assert (kept.patient_sex, kept.patient_age, kept.pixel_spacing) == ("F", 90.0, (0.2, 0.1))
    assert (kept.bits_stored, kept.photometric, kept.modality) == (12, "MONOCHROME2", "CR")
    for secret in ("P1", "1.2.3", "A77", "Doe", "1950", "Mercy"):
        assert secret not in repr(stored)
    everything = " ".join(str(getattr(kept, f.name)) for f in fields(kept))
    assert not any(word in everything for word in ("Doe", "1950", "Mercy"))


@pytest.mark.parametrize(
    ("text", "years"),
    [
        *(("045Y", 45), ("018M", 1.5), ("010D", 0.03), ("089Y", 89), ("090Y", 90), ("120Y", 90)),
        *(("62", 62), ("old", None), ("", None)),
    ],
)
def test_ages_are_years_and_those_above_89_are_one(text, years):
    kept = decode_dicom(dicom(ramp(), PatientAge=text), DicomSettings()).header
    assert kept.patient_age == years


def test_words_that_are_no_codes_are_dropped_from_the_header():
    tags = {"ViewPosition": "PA, Mrs. Doe", "BodyPartExamined": "Jane's chest", "PatientSex": "x"}
    kept = decode_dicom(dicom(ramp(), **tags), DicomSettings()).header
    assert (kept.view, kept.view_position, kept.body_part, kept.patient_sex) == ("", "", "", "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window": "last"}, "'window' is 'last'; accepted are first, lut, percentile and the num"),
        ({"window": True}, "'window' is True"),
        ({"window": -1}, "'window' is -1"),
        ({"depth": 12}, "'depth' is 12; accepted are 8 and 16"),
        ({"modalities": "CR"}, "'modalities' is a list"),
        ({"modalities": ["cr"]}, "'modalities' is a list"),
        ({"percentiles": [99, 1]}, "'percentiles' are two of 0 to 100"),
        ({"secondary_capture": "no"}, "'secondary_capture' is true or false"),
    ],
)
def test_settings_that_mean_nothing_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        DicomSettings(**settings)
