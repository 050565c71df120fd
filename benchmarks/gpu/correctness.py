"""Every fused form against float64 on the same rows, before anything is timed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

import torch

from benchmarks.gpu.setting import Setting
from benchmarks.gpu.truth import subset_gradient
from benchmarks.problems import PROBLEMS
from benchmarks.report import Table
from benchmarks.rows import T, random_rows
from benchmarks.ways import Way, apart_of, leaf, told
from lightning_rad.losses.nt_xent import nt_xent

SHAPES: Mapping[str, list[tuple[int, ...]]] = {
    "NT-Xent": [(1000, 128), (1031, 200), (2049, 512), (1500, 1024)],
    "CLIP": [(1100, 128), (2049, 512), (1500, 1024)],
    "sigmoid": [(1100, 128), (2049, 512), (1500, 1024)],
    "InfoNCE": [(256, 65536, 128), (99, 30001, 256)],
}
TINY: Mapping[str, list[tuple[int, ...]]] = {
    "NT-Xent": [(150, 24)],
    "CLIP": [(270, 24)],
    "sigmoid": [(270, 24)],
    "InfoNCE": [(9, 8001, 24)],
}
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 5e-3, torch.float16: 2e-3}
"""Of the gradient's error over its norm; rounding the result costs 1.7e-3 and 2e-4 in 16 bits."""
COLUMNS = ["loss", "shape", "rows", "loss error", "gradient error", ""]


def run(setting: Setting) -> Iterator[Table]:
    table = Table(f"Fused forms against float64, t {T}", COLUMNS)
    shapes = TINY if setting.tiny else SHAPES
    for problem, dtype in product(shapes, BOUNDS):
        for shape in shapes[problem]:
            if setting.over:
                table.note = "Cut off by the section's time."
                return
            table.rows.append(_row(setting, problem, shape, dtype))
            setting.say(" | ".join(table.rows[-1].values()))
            yield table
    for shape in [(300, 24)] if setting.tiny else [(65536, 128), (65536, 1024)]:
        table.rows.append(_large(setting, *shape))
        setting.say(" | ".join(table.rows[-1].values()))
        yield table


def _row(
    setting: Setting, problem: str, shape: tuple[int, ...], dtype: torch.dtype
) -> dict[str, str]:
    cells = {"loss": problem, "shape": " x ".join(map(str, shape)), "rows": _name(dtype)}
    try:
        ways = PROBLEMS[problem](*shape, device=setting.device, dtype=dtype)
        ours, definition = ways["ours"], ways["definition"]
        assert isinstance(ours, Way)
        assert isinstance(definition, Way)
        value, got = ours.step()
        wide = tuple(leaf(rows, torch.float64) for rows in ours.leaves)
        truth, wanted = Way(definition.loss, wide).step()
    except Exception as error:  # the other rows are still wanted
        return cells | {"": f"fails: {told(error)}"}
    off = abs(float(value) - float(truth)) / abs(float(truth))
    return cells | _verdict(
        off, max(apart_of(g, w) for g, w in zip(got, wanted, strict=True)), dtype
    )


def _large(setting: Setting, pairs: int, dim: int) -> dict[str, str]:
    """NT-Xent where no matrix fits: the gradient of some rows."""
    cells = {"loss": "NT-Xent, some rows", "shape": f"{pairs} x {dim}", "rows": "bfloat16"}
    try:
        z_MD = leaf(random_rows(2 * pairs, dim, device=setting.device, dtype=torch.bfloat16))
        ids_M = torch.arange(pairs, device=setting.device).repeat(2)
        value = nt_xent(z_MD, z_MD, ids_M, temperature=T)
        (gradient_MD,) = torch.autograd.grad(value, z_MD)
        some = torch.arange(0, 2 * pairs, max(1, pairs // 100), device=setting.device)
        truth, wanted = subset_gradient(z_MD.detach(), some, T)
    except Exception as error:
        return cells | {"": f"fails: {told(error)}"}
    off = abs(float(value.detach()) - truth) / truth
    return cells | _verdict(off, apart_of(gradient_MD[some], wanted), torch.bfloat16)


def _verdict(off: float, apart: float, dtype: torch.dtype) -> dict[str, str]:
    good = apart < BOUNDS[dtype] and off < BOUNDS[dtype]
    verdict = "ok" if good else f"ABOVE {BOUNDS[dtype]:.0e}"
    return {"loss error": f"{off:.1e}", "gradient error": f"{apart:.1e}", "": verdict}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
