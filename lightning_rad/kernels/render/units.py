"""Whole numbers that stand for fractions, the same wherever a view is drawn or rendered."""

from __future__ import annotations

from typing import Final

UNIT_BITS: Final = 16
"""Coefficients of the affine map count 2^-16 pixels."""

FRACTION_BITS: Final = 5
"""Points are rounded to 2^-5 pixels, the resolution of the interpolation weights."""

KERNEL_UNIT: Final = 256
"""Blur coefficients are whole multiples of 1 / KERNEL_UNIT and sum to one."""

SHIFT: Final = 8
"""A view gets (tile * amplitude + half) >> SHIFT added, saturating: all of it fits 16 bits."""
