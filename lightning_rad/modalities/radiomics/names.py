"""The 102 features' names: ours, `family.feature`, and those of pyradiomics.

Families stand in the order of the issue; within one, features in that of pyradiomics' results.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lightning_rad.modalities.radiomics.first_order import NAMES as FIRST_ORDER
from lightning_rad.modalities.radiomics.glcm import NAMES as GLCM
from lightning_rad.modalities.radiomics.gldm import NAMES as GLDM
from lightning_rad.modalities.radiomics.glrlm import NAMES as GLRLM
from lightning_rad.modalities.radiomics.glszm import NAMES as GLSZM
from lightning_rad.modalities.radiomics.ngtdm import NAMES as NGTDM
from lightning_rad.modalities.radiomics.shape import NAMES as SHAPE

FAMILIES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "first_order": ("firstorder", FIRST_ORDER),
    "shape": ("shape2D", SHAPE),
    "glcm": ("glcm", GLCM),
    "glrlm": ("glrlm", GLRLM),
    "glszm": ("glszm", GLSZM),
    "gldm": ("gldm", GLDM),
    "ngtdm": ("ngtdm", NGTDM),
}


def _theirs(name: str) -> str:
    """`joint_entropy` as pyradiomics writes it: JointEntropy."""
    return "MCC" if name == "mcc" else "".join(word.capitalize() for word in name.split("_"))


PYRADIOMICS: Final[Mapping[str, str]] = {
    f"{family}.{name}": f"{theirs}_{_theirs(name)}"
    for family, (theirs, names) in FAMILIES.items()
    for name in names
}
"""Our name of each feature -> pyradiomics' class and feature, as in `glcm_JointEntropy`."""
FEATURES: Final[tuple[str, ...]] = tuple(PYRADIOMICS)
