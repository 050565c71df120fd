"""What the sets of a mixture must know of the findings that an objective reads."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_rad.data.asked import require_findings
from lightning_rad.manifest import load_manifest
from lightning_rad.modalities.evidence import FindingReading


def test_a_finding_that_only_some_sets_know_is_unknown_in_the_others_which_is_said(
    tiny_shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = load_manifest(tiny_shards)
    manifests = {
        "chests": replace(one, labels=("Edema", "Mass")),
        "limbs": replace(one, labels=("Abnormal",)),
        "bare": replace(one, labels=()),
    }
    with caplog.at_level(logging.WARNING):
        require_findings(manifests, FindingReading(("Edema", "Mass")))
    said = "data.manifest limbs has no labels ['Edema', 'Mass']: they are unknown there"
    assert caplog.messages == [said]
    with pytest.raises(ValueError, match=r"data\.manifest \w+ has no label 'Edima', which model"):
        require_findings(manifests, FindingReading(("Edema", "Edima")))
