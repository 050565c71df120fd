"""What a text says is there: denials, their scope, and the synthetic reports."""

import numpy as np
import pytest

from lightning_rad.modalities.mentions import SYNTHETIC_WORDS, mentioned
from lightning_rad.modalities.report import parse_report, swap_sides
from lightning_rad.sharding.sources.synthetic.findings import LABELS, courses
from lightning_rad.sharding.sources.synthetic.report import write_report


def named(text: str) -> set[str]:
    return {finding for finding, there in mentioned(text, SYNTHETIC_WORDS).items() if there}


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("Small left pleural effusion.", {"effusion"}),
        ("BILATERAL EFFUSIONS", {"effusion"}),
        ("No pleural effusion.", set()),
        ("No effusion, consolidation or pneumothorax.", set()),
        ("No effusion. Small pneumothorax.", {"pneumothorax"}),
        ("No effusion but a small pneumothorax.", {"pneumothorax"}),
        ("No effusion, there is edema.", {"edema"}),
        ("Effusion without pneumothorax.", {"effusion"}),
        ("The lungs are free of consolidation; mild edema.", {"edema"}),
        ("The pleural effusion of the prior study has resolved.", set()),
        ("Previously seen nodule is no longer present.", set()),
        ("Resolved edema.", set()),
        ("Edema has resolved and effusion remains.", {"effusion"}),
        ("The effusion has not resolved.", {"effusion"}),
        ("No change in the left effusion.", {"effusion"}),
        ("No significant interval change of the nodule.", {"nodule"}),
        ("The effusion is not significantly changed.", {"effusion"}),
        ("A pneumothorax is not seen.", set()),
        ("The cardiac silhouette is not enlarged.", set()),
        ("Moderate enlargement of the cardiac silhouette.", {"cardiomegaly"}),
        ("Heart size is normal.", set()),
        ("Small effusion and the heart size is normal.", {"effusion"}),
        ("There is no pleural fluid on either side.", set()),
        ("No effusion. The effusion is large.", {"effusion"}),
        ("Atelectatic base, negative for nodules.", {"atelectasis"}),
        ("", set()),
    ],
)
def test_a_finding_is_there_where_it_is_named_and_not_denied(text, there) -> None:
    assert named(text) == there


def test_sides_do_not_matter() -> None:
    for text in ("Small left effusion.", "No right nodule.", "Left-sided pleural fluid."):
        assert named(text) == named(swap_sides(text))


def test_every_finding_has_an_answer_and_other_words_are_met_at_their_beginning() -> None:
    found = mentioned("Hypertension; tubes.", {"tension": ["tension"], "tube": ["tube"]})
    assert found == {"tension": False, "tube": True}
    assert set(SYNTHETIC_WORDS) == set(LABELS)


@pytest.mark.parametrize("written", [str, str.lower])
def test_true_synthetic_reports_say_their_labels(written) -> None:
    right = wrong = 0
    for i in range(250):
        course = courses(np.random.default_rng([31, i]), 2)
        rng = np.random.default_rng([32, i])
        first = write_report(rng, course[0], None, ["PA"], ["pacemaker"])
        second = write_report(rng, course[1], course[0], ["AP", "LATERAL"], [])
        for report, findings in ((first, course[0]), (second, course[1])):
            truth = {finding.label for finding in findings}
            told = named(written(parse_report(report).text))
            right += 2 * len(truth & told)
            wrong += len(truth ^ told)
    assert right > 500
    assert right / (right + wrong) >= 0.99
