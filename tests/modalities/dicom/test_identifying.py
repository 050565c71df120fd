"""What headers say of people is read for the search alone, and missing or damaged ones say less."""

import pytest

from lightning_rad.modalities.dicom import identifying_values
from tests.modalities.dicom.files import header, ramp, written


@pytest.fixture
def file(tmp_path):
    pixels = ramp()
    data = header(pixels, bits=12, AccessionNumber="ACC77", PatientBirthDate="19560102")
    data.InstitutionName = "St. Mary"
    data.OperatorsName = ["Doe^J", "Roe^R"]
    path = tmp_path / "x.dcm"
    path.write_bytes(written(data, pixels))
    return path


def test_values_of_people_places_and_numbers_are_read(file):
    assert identifying_values(file) == {
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19560102",
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SOPInstanceUID": "1.2.3.4.5",
        "AccessionNumber": "ACC77",
        "OperatorsName": "Doe^J\nRoe^R",
        "InstitutionName": "St. Mary",
    }


def test_what_is_no_dicom_file_says_nothing(tmp_path):
    for data in (b"", b"no file at all", bytes(range(256)) * 20):
        (tmp_path / "x").write_bytes(data)
        assert identifying_values(tmp_path / "x") == {}
