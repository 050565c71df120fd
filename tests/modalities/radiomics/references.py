"""Features by mirp and flash-radiomics, and what they call ours.

None: no equal definition there. A pair is a name and a number to add.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import flash_radiomics
import numpy as np
from mirp import extract_features

from lightning_rad.modalities.radiomics import FEATURES, PYRADIOMICS

Name = str | tuple[str, float] | None
WIDTH = 25.0
FLASH_FAMILIES = {
    "firstorder": flash_radiomics.RadiomicsFirstOrder,
    "shape2D": flash_radiomics.RadiomicsShape2D,
    "glcm": flash_radiomics.RadiomicsGLCM,
    "glrlm": flash_radiomics.RadiomicsGLRLM,
    "glszm": flash_radiomics.RadiomicsGLSZM,
    "gldm": flash_radiomics.RadiomicsGLDM,
    "ngtdm": flash_radiomics.RadiomicsNGTDM,
}
MIRP_SETTINGS = {
    "by_slice": True,
    "base_discretisation_method": "fixed_bin_size",
    "base_discretisation_bin_width": WIDTH,
    "resegmentation_intensity_range": [0.0, np.nan],
    "base_feature_families": ["stat", "ih", "cm", "rlm", "szm", "ngtdm", "ngldm"],
    "glcm_spatial_method": "2d_average",
    "glrlm_spatial_method": "2d_average",
    "glszm_spatial_method": "2d",
    "ngtdm_spatial_method": "2d",
    "ngldm_spatial_method": "2d",
}

FLASH: Mapping[str, Name] = PYRADIOMICS | {"first_order.kurtosis": ("firstorder_Kurtosis", 3.0)}
"""As pyradiomics, but excess kurtosis; its MCC is right where Python computes it, not C."""

_EMPHASES = {
    "gray_level_non_uniformity": "glnu",
    "gray_level_non_uniformity_normalized": "glnu_norm",
    "gray_level_variance": "gl_var",
}
_MIRP = {
    "first_order": (
        "stat_{}",
        {
            "10_percentile": "p10",
            "90_percentile": "p90",
            "energy": "energy",
            "interquartile_range": "iqr",
            "maximum": "max",
            "mean_absolute_deviation": "mad",
            "mean": "mean",
            "median": "median",
            "minimum": "min",
            "range": "range",
            "robust_mean_absolute_deviation": "rmad",
            "root_mean_squared": "rms",
            "skewness": "skew",
            "total_energy": "energy",
            "variance": "var",
        },
    ),
    "glcm": (
        "cm_{}_d1_2d_avg_fbs_w25.0",
        {
            "autocorrelation": "auto_corr",
            "cluster_prominence": "clust_prom",
            "cluster_shade": "clust_shade",
            "cluster_tendency": "clust_tend",
            "contrast": "contrast",
            "correlation": "corr",
            "difference_average": "diff_avg",
            "difference_entropy": "diff_entr",
            "difference_variance": "diff_var",
            "id": "inv_diff",
            "idm": "inv_diff_mom",
            "idmn": "inv_diff_mom_norm",
            "idn": "inv_diff_norm",
            "imc1": "info_corr1",
            "imc2": "info_corr2",
            "inverse_variance": "inv_var",
            "joint_average": "joint_avg",
            "joint_energy": "energy",
            "joint_entropy": "joint_entr",
            "maximum_probability": "joint_max",
            "sum_average": "sum_avg",
            "sum_entropy": "sum_entr",
            "sum_squares": "joint_var",
        },
    ),
    "glrlm": (
        "rlm_{}_2d_avg_fbs_w25.0",
        _EMPHASES
        | {
            "high_gray_level_run_emphasis": "hgre",
            "long_run_emphasis": "lre",
            "long_run_high_gray_level_emphasis": "lrhge",
            "long_run_low_gray_level_emphasis": "lrlge",
            "low_gray_level_run_emphasis": "lgre",
            "run_entropy": "rl_entr",
            "run_length_non_uniformity": "rlnu",
            "run_length_non_uniformity_normalized": "rlnu_norm",
            "run_percentage": "r_perc",
            "run_variance": "rl_var",
            "short_run_emphasis": "sre",
            "short_run_high_gray_level_emphasis": "srhge",
            "short_run_low_gray_level_emphasis": "srlge",
        },
    ),
    "glszm": (
        "szm_{}_2d_fbs_w25.0",
        _EMPHASES
        | {
            "high_gray_level_zone_emphasis": "hgze",
            "large_area_emphasis": "lze",
            "large_area_high_gray_level_emphasis": "lzhge",
            "large_area_low_gray_level_emphasis": "lzlge",
            "low_gray_level_zone_emphasis": "lgze",
            "size_zone_non_uniformity": "zsnu",
            "size_zone_non_uniformity_normalized": "zsnu_norm",
            "small_area_emphasis": "sze",
            "small_area_high_gray_level_emphasis": "szhge",
            "small_area_low_gray_level_emphasis": "szlge",
            "zone_entropy": "zs_entr",
            "zone_percentage": "z_perc",
            "zone_variance": "zs_var",
        },
    ),
    "gldm": (
        "ngl_{}_d1_a0.0_2d_fbs_w25.0",
        {
            "dependence_entropy": "dc_entr",
            "dependence_non_uniformity": "dcnu",
            "dependence_non_uniformity_normalized": "dcnu_norm",
            "dependence_variance": "dc_var",
            "gray_level_non_uniformity": "glnu",
            "gray_level_variance": "gl_var",
            "high_gray_level_emphasis": "hgce",
            "large_dependence_emphasis": "hde",
            "large_dependence_high_gray_level_emphasis": "hdhge",
            "large_dependence_low_gray_level_emphasis": "hdlge",
            "low_gray_level_emphasis": "lgce",
            "small_dependence_emphasis": "lde",
            "small_dependence_high_gray_level_emphasis": "ldhge",
            "small_dependence_low_gray_level_emphasis": "ldlge",
        },
    ),
    "ngtdm": (
        "ngt_{}_2d_fbs_w25.0",
        {name: name for name in ("busyness", "coarseness", "complexity", "contrast", "strength")},
    ),
}
MIRP: Mapping[str, Name] = (
    dict.fromkeys(FEATURES)
    | {
        f"{family}.{ours}": pattern.format(theirs)
        for family, (pattern, names) in _MIRP.items()
        for ours, theirs in names.items()
    }
    | {
        "first_order.kurtosis": ("stat_kurt", 3.0),
        "first_order.entropy": "ih_entropy_fbs_w25.0",
        "first_order.uniformity": "ih_uniformity_fbs_w25.0",
    }
)
"""No maximal correlation coefficient, and shape is of a solid, its axes with n - 1."""


def table() -> list[str]:
    """The lines of the table in docs/radiomics.md."""

    def cell(name: Name) -> str:
        if name is None:
            return "none"
        return f"`{name}`" if isinstance(name, str) else f"`{name[0]}` + {name[1]:g}"

    lines = [
        f"| `{name}` | `{PYRADIOMICS[name]}` | {cell(FLASH[name])} | {cell(MIRP[name])} |"
        for name in FEATURES
    ]
    return ["| ours | pyradiomics | flash-radiomics | mirp |", "|---|---|---|---|", *lines]


def flash(greys: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Our names -> flash-radiomics, of [h, w]."""
    found = {}
    settings = {"backend": "cpu", "num_threads": 1, "spacing": (1.0, 1.0), "binWidth": WIDTH}
    for family, kind in FLASH_FAMILIES.items():
        made = kind(greys.astype(np.float32), mask.astype(np.uint8), glcmPythonMCC=True, **settings)
        found |= {f"{family}_{name}": value for name, value in made.execute().items()}
    return _named(FLASH, found)


def mirp(greys: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    """Our names -> mirp, of [h, w]; bins begin at grey 0, as ours do if one lies below 25."""
    assert greys[mask].min() < WIDTH
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that greys are no physical unit
        table = extract_features(
            image=greys[None].astype(np.float32), mask=mask[None].astype(np.uint8), **MIRP_SETTINGS
        )[0]
    return _named(MIRP, table.iloc[0].to_dict())


def _named(names: Mapping[str, Name], found: dict[str, float]) -> dict[str, float]:
    """Ours -> their number under our definition, where they have one."""
    pairs = {
        ours: (theirs, 0.0) if isinstance(theirs, str) else theirs
        for ours, theirs in names.items()
        if theirs is not None
    }
    return {ours: float(found[theirs]) + add for ours, (theirs, add) in pairs.items()}
