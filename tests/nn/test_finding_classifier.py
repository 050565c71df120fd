"""The small networks of the knowledge contrast: a classifier and what reads radiomics."""

import pytest
import torch

from lightning_rad.nn.blocks import Part
from lightning_rad.nn.finding_classifier import FindingClassifier
from lightning_rad.nn.radiomic_encoder import RadiomicEncoder


def test_logits_are_features_along_the_directions_and_the_bias() -> None:
    torch.manual_seed(0)
    classifier = FindingClassifier(6, 3)
    features = torch.randn(4, 6)
    logits, directions = classifier(features)
    assert directions.shape == (4, 3, 6)
    along = torch.einsum("bcd,bd->bc", directions, features) + classifier.linear.bias
    torch.testing.assert_close(logits, along)
    assert logits.requires_grad
    assert not directions.requires_grad


def test_directions_are_those_of_the_call_whatever_becomes_of_the_weights() -> None:
    classifier = FindingClassifier(2, 1)
    directions = classifier(torch.zeros(1, 2))[1].clone()
    kept = classifier(torch.zeros(1, 2))[1]
    with torch.no_grad():
        classifier.linear.weight.zero_()
    assert torch.equal(kept, directions)


def test_the_radiomic_encoder_has_two_layers_as_wide_as_it_says() -> None:
    encoder = RadiomicEncoder()
    assert encoder.out_features == 102
    assert [tuple(p.shape) for p in encoder.parameters() if p.ndim == 2] == [(102, 102)] * 2
    assert RadiomicEncoder(102, width=16)(torch.zeros(3, 102)).shape == (3, 16)


def test_both_are_parts_that_are_sharded_by_themselves() -> None:
    assert issubclass(FindingClassifier, Part)
    assert issubclass(RadiomicEncoder, Part)


def test_sizes_below_one_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"classifier.findings: 0"):
        FindingClassifier(4, 0)
    with pytest.raises(ValueError, match=r"radiomic.encoder.width: 0"):
        RadiomicEncoder(4, width=0)
