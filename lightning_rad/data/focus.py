"""What views that look where readers looked had to make do with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from torch import Tensor

from lightning_rad.data.views.focus_recipe import FocusRecipe
from lightning_rad.data.views.params import BLANK, CROP_EXHAUSTED, CUTOUT_EXHAUSTED
from lightning_rad.data.views.recipe import ViewRecipe

EXHAUSTED: Final = {
    "crop_exhausted": CROP_EXHAUSTED,
    "cutout_exhausted": CUTOUT_EXHAUSTED,
    "blank": BLANK,
}


def focus_counters() -> dict[str, int]:
    """Counters for `count_focus`: drawn, crop_exhausted, cutout_exhausted, blank; all 0."""
    return dict.fromkeys(("drawn", *EXHAUSTED), 0)


def count_focus(counters: dict[str, int], focus_VR: Tensor, views: Sequence[ViewRecipe]) -> None:
    """Add what the focus views of a batch had to make do with; focus_VR: of its `StreamBatch`."""
    focused = sum(isinstance(view, FocusRecipe) for view in views)
    counters["drawn"] += focused * focus_VR.shape[1]
    for name, bit in EXHAUSTED.items():
        counters[name] += int((focus_VR & bit).count_nonzero())
