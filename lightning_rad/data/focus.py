"""Views that look where readers looked: which they are, and what they had to make do with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeGuard

from torch import Tensor

from lightning_rad.data.views.focus_recipe import FocusRecipe
from lightning_rad.data.views.params import BLANK, CROP_EXHAUSTED, CUTOUT_EXHAUSTED
from lightning_rad.data.views.recipe import ViewRecipe

EXHAUSTED: Final = {
    "crop_exhausted": CROP_EXHAUSTED,
    "cutout_exhausted": CUTOUT_EXHAUSTED,
    "blank": BLANK,
}


def is_focused(view: ViewRecipe) -> TypeGuard[FocusRecipe]:
    """Whether a view is drawn by maps of what readers looked at."""
    return isinstance(view, FocusRecipe) and view.saliency is not None


def focus_counters() -> dict[str, int]:
    """Counters for `count_focus`: drawn, crop_exhausted, cutout_exhausted, blank; all 0."""
    return dict.fromkeys(("drawn", *EXHAUSTED), 0)


def count_focus(counters: dict[str, int], focus_VR: Tensor, views: Sequence[ViewRecipe]) -> None:
    """Add what the focus views of a batch had to make do with; focus_VR: of its `StreamBatch`."""
    counters["drawn"] += sum(map(is_focused, views)) * focus_VR.shape[1]
    for name, bit in EXHAUSTED.items():
        counters[name] += int((focus_VR & bit).count_nonzero())
