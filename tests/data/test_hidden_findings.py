"""Labels and boxes that are kept back in training are those of whole patients."""

from pathlib import Path

import numpy as np

from lightning_rad.data.findings import FindingReader, drawn
from lightning_rad.data.reader import Reader
from lightning_rad.modalities.evidence import FindingReading
from tests.data.evidence import batches_of, data_of, patients_of
from tests.data.reports import source_of


def test_hidden_labels_are_of_whole_patients_and_the_same_however_they_are_read(
    tiny_shards: Path, names: tuple[str, ...]
) -> None:
    reading = FindingReading(names, labelled=0.5, boxed=0.4)
    source = source_of(tiny_shards)
    every = list(range(len(source.index.images)))
    open_, half = (FindingReader(Reader([source]), reading, hides=hides) for hides in (False, True))
    labelled: dict[int, set[bool]] = {}
    boxes: dict[int, set[bool]] = {}
    for image, patient in zip(every, patients_of(source, every), strict=True):
        full, seen = open_.of(image), half.of(image)
        assert not np.isnan(full.labels).all()
        shown = not np.isnan(seen.labels).any()
        assert shown or np.isnan(seen.labels).all()
        labelled.setdefault(patient, set()).add(shown)
        if len(full.boxes):
            assert len(seen.boxes) in (0, len(full.boxes))
            boxes.setdefault(patient, set()).add(bool(len(seen.boxes)))
    assert all(len(said) == 1 for said in (*labelled.values(), *boxes.values()))
    shares = [np.mean([True in said for said in table.values()]) for table in (labelled, boxes)]
    assert 0.3 < shares[0] < 0.7
    assert 0.2 < shares[1] < 0.6
    both = [{p for p, said in table.items() if True in said} for table in (labelled, boxes)]
    assert both[1] - both[0]  # drawn apart: boxes of some whose labels are hidden
    few = FindingReader(Reader([source]), FindingReading(names, labelled=0.25), hides=True)
    kept = {
        patient
        for image, patient in zip(every, patients_of(source, every), strict=True)
        if not np.isnan(few.of(image).labels).all()
    }
    assert kept < both[0]  # a smaller share is part of a larger one


def test_a_stream_keeps_back_what_is_hidden(tiny_shards: Path, names: tuple[str, ...]) -> None:
    data = data_of(tiny_shards, FindingReading(names, labelled=0.5, boxed=0.0))
    seen = drawn("labelled", source_of(tiny_shards).index, 0.5)
    study = source_of(tiny_shards).index.images["study"]
    for batch in batches_of(data, 3):
        assert batch.findings.boxes.shape[2] == 0
        known = ~batch.findings.labels.isnan().all(-1)
        assert known.tolist() == seen[study[batch.image.numpy()]].tolist()
        assert known.any()
        assert not known.all()


def test_studies_of_no_known_patient_are_hidden_one_by_one(tiny_shards: Path) -> None:
    index = source_of(tiny_shards).index
    index.studies["patient"] = 0
    seen = drawn("labelled", index, 0.5)
    assert 0.3 < seen.mean() < 0.7
    assert drawn("labelled", index, 1.0).all()
    assert not drawn("labelled", index, 0.0).any()
