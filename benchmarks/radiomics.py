"""Radiomics per region on a CPU: ours in batches, flash-radiomics and mirp one region a call.

    python -m benchmarks.radiomics OUT [--device cuda]

Contenders take turns on the same regions, and must agree first. Writes OUT/radiomics_<machine>_
<date>.json and .md; exits with 1 where a target is missed. The others are taken at their best:
flash-radiomics gets its levels made once for all families, and only families of the 102; mirp
leaves out its shapes, which are of solids and take most of its time.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import flash_radiomics
import mirp
import numpy as np
import torch
from flash_radiomics.imageoperations import binImage
from torch import Tensor
from torch.nn.functional import interpolate

from benchmarks import machine, report
from benchmarks.report import Goal, Table
from benchmarks.timing import Times, race
from lightning_rad.modalities.radiomics import FEATURES, PYRADIOMICS, radiomics

REGIONS = 64
SIDES = (32, 64, 128, 224)
OVER_MIRP = 20.0
OVER_FLASH = 1.0
SECONDS = 12.0
TOLERANCE = 1e-4
# mirp's numbers are float32; these two of flash are other ones: excess, and inexact in its C code
UNLIKE = ("first_order.kurtosis", "glcm.mcc")
FAMILIES = {
    "firstorder": flash_radiomics.RadiomicsFirstOrder,
    "shape2D": flash_radiomics.RadiomicsShape2D,
    "glcm": flash_radiomics.RadiomicsGLCM,
    "glrlm": flash_radiomics.RadiomicsGLRLM,
    "glszm": flash_radiomics.RadiomicsGLSZM,
    "gldm": flash_radiomics.RadiomicsGLDM,
    "ngtdm": flash_radiomics.RadiomicsNGTDM,
}
MIRP: dict[str, Any] = {
    "by_slice": True,
    "base_discretisation_method": "fixed_bin_size",
    "base_discretisation_bin_width": 25.0,
    "resegmentation_intensity_range": [0.0, math.nan],
    "base_feature_families": ["stat", "ih", "cm", "rlm", "szm", "ngtdm", "ngldm"],
    "glcm_spatial_method": "2d_average",
    "glrlm_spatial_method": "2d_average",
    "glszm_spatial_method": "2d",
    "ngtdm_spatial_method": "2d",
    "ngldm_spatial_method": "2d",
}
NOTE = f"""Milliseconds a region, median over rounds and in brackets the best; then how many times
as long as ours in a batch the others take, the median over rounds of the two times in that round.
A batch is {REGIONS} regions. smooth: blobs with a little grain, as in a radiograph; noise: every
pixel for itself, the most runs and zones there can be."""
COLUMNS = ["region", "ours in a batch, ms", "ours alone, ms", "flash, ms", "mirp, ms"]
COLUMNS += ["ours alone / batch", "flash / batch", "mirp / batch"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"], help="where ours runs")
    parser.add_argument("--pace", type=float, default=1.0, help="seconds a line, times this")
    asked = parser.parse_args()
    logging.disable(logging.INFO)  # mirp tells of every region
    warnings.filterwarnings("ignore", module="mirp")
    begun, facts = time.perf_counter(), machine.facts(asked.device)
    table, wanted = Table("Radiomics of one region", COLUMNS, note=NOTE), []
    for kind, side in [*(("smooth", side) for side in SIDES), ("noise", 64), ("noise", 224)]:
        regions = made(kind, side).to(asked.device)
        times = held(regions, asked.device, SECONDS * asked.pace)
        title = f"{kind} {side} x {side}"
        add(table, title, times)
        wanted += goals(title, times)
        print(" | ".join(table.rows[-1].values()), flush=True)
    facts |= {"seconds spent": f"{time.perf_counter() - begun:.0f}"}
    name = f"radiomics_{machine.slug(asked.device)}_{facts['date']}"
    title = f"Radiomics on {asked.device}, {facts['date']}"
    report.write(asked.out, name, title, facts, [report.goals_table(wanted), table])
    print("\n".join(" | ".join(goal.row().values()) for goal in wanted))
    print(f"{asked.out / name}.md")
    sys.exit(not all(goal.met for goal in wanted))


def made(kind: str, side: int) -> Tensor:
    """[REGIONS, side, side] uint8."""
    made = torch.Generator().manual_seed(side)
    if kind == "noise":
        return torch.randint(0, 256, (REGIONS, side, side), dtype=torch.uint8, generator=made)
    coarse = torch.rand(REGIONS, 1, side // 8 + 2, side // 8 + 2, generator=made)
    smooth = interpolate(coarse, (side, side), mode="bicubic")[:, 0]
    grain = torch.randn(smooth.shape, generator=made) * 0.015
    return ((smooth + grain).clamp(0, 1) * 255).to(torch.uint8)


def held(regions: Tensor, device: str, seconds: float) -> dict[str, Times]:
    """Seconds a region of each way; raises where ours and flash-radiomics disagree."""
    arrays = regions.cpu().numpy().astype(np.float32)
    _agree(radiomics(regions[:1])[0].tolist(), flash(arrays[0]))
    turns = {"flash": 0, "mirp": 0}

    def turn(name: str) -> np.ndarray:
        turns[name] += 1
        return arrays[turns[name] % REGIONS]

    calls = {
        "batch": lambda: radiomics(regions),
        "alone": lambda: radiomics(regions[:1]),
        "flash": lambda: flash(turn("flash")),
        "mirp": lambda: by_mirp(turn("mirp")),
    }
    taken = race(calls, seconds=seconds, device=device)
    taken["batch"] = Times([second / REGIONS for second in taken["batch"].rounds])
    return taken


def flash(greys: np.ndarray) -> dict[str, float]:
    mask = np.ones(greys.shape, dtype=np.uint8)
    levels = np.ascontiguousarray(binImage(greys, mask != 0, binWidth=25)[0], dtype=np.int32)
    settings = {"backend": "cpu", "num_threads": torch.get_num_threads(), "spacing": (1.0, 1.0)}
    shared = {"binWidth": 25, "discretized": levels, "ng": int(levels.max())}
    found = {}
    for family, kind in FAMILIES.items():
        maker = kind(greys, mask, **settings, **shared)
        for theirs in PYRADIOMICS.values():
            if theirs.startswith(f"{family}_"):
                maker.enableFeatureByName(theirs.removeprefix(f"{family}_"))
        found |= {f"{family}_{name}": value for name, value in maker.execute().items()}
    return found


def by_mirp(greys: np.ndarray) -> object:
    mask = np.ones((1, *greys.shape), dtype=np.uint8)
    return mirp.extract_features(image=greys[None], mask=mask, **MIRP)


def _agree(ours: list[float], theirs: dict[str, float]) -> None:
    for name, value in zip(FEATURES, ours, strict=True):
        other = theirs[PYRADIOMICS[name]]
        if name not in UNLIKE and not math.isclose(value, other, rel_tol=TOLERANCE, abs_tol=1e-9):
            raise RuntimeError(f"{name}: {value} is ours, {other} that of flash-radiomics")


def goals(title: str, times: dict[str, Times]) -> list[Goal]:
    least = {"mirp": OVER_MIRP, "flash": OVER_FLASH}
    return [
        Goal(f"{title}: {other} / ours", wanted, times[other].over(times["batch"]))
        for other, wanted in least.items()
    ]


def add(table: Table, title: str, times: dict[str, Times]) -> None:
    cells = [f"{1e3 * spent.median:.2f} ({1e3 * spent.best:.2f})" for spent in times.values()]
    over = [f"{times[name].over(times['batch']):.1f}" for name in ("alone", "flash", "mirp")]
    table.rows.append(dict(zip(COLUMNS, [title, *cells, *over], strict=True)))
    seconds = {name: spent.summary() for name, spent in times.items()}
    table.details.append({"region": title, "seconds": seconds})


if __name__ == "__main__":
    main()
