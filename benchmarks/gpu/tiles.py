"""Which tiles a card likes: every kernel's shipped tile against others, bfloat16 rows.

    python -m benchmarks.gpu.tiles OUT [--seconds 300] [--device cpu --tiny]

Writes OUT/tiles_<card>_<date>.json and .md, fastest first; the table of a kernel's `meta` takes
what wins. A tile that does not compile, or whose result differs, is told and left out.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks import machine, report
from benchmarks.gpu.setting import Setting
from benchmarks.report import Table
from benchmarks.rows import random_rows
from benchmarks.timing import race
from benchmarks.ways import told
from lightning_rad.kernels.info_nce import fused_triton as queue
from lightning_rad.kernels.pairs import Pairs, Weights
from lightning_rad.kernels.pairs import fused_triton as pairs

Tile = dict[str, int]
SIDES, WARPS, STAGES = [(128, 128), (128, 64), (64, 128), (64, 64)], [4, 8], [2, 3, 4]


def candidates(kernel: str, shipped: Tile, tiny: bool) -> Iterator[Tile]:
    """The shipped tile first; the triangle of "sums" is made of square ones."""
    yield shipped
    sides = [(r, k) for r, k in reversed(SIDES) if r == k or kernel != "sums"]
    for (rows, keys), warps, stages in product(sides, WARPS, STAGES):
        tile = shipped | {"BM": rows, "BN": keys, "num_warps": warps, "num_stages": stages}
        if tile != shipped:
            yield tile
        if tiny:
            return


def works(setting: Setting) -> Iterator[tuple[str, str, Any, Tile, Callable[[], Tensor]]]:
    """Kernel, size, the module whose `meta` is asked for it, shipped tile, and a call."""
    scale = torch.tensor(10.0, device=setting.device)
    for features in (16,) if setting.tiny else (128, 256, 768):
        count = 40 if setting.tiny else 32768
        z = random_rows(count, features, device=setting.device, dtype=setting.dtype)
        ids = torch.arange(count // 2, device=setting.device).repeat(2)
        of = Pairs(z, z, ids, ids, None, None, 0, scale, True)
        one = Weights(*torch.ones(3, count, device=setting.device))
        size = f"{count} x {features}"
        shipped = pairs.meta("sums", features, "bf16")
        yield "sums", size, pairs, shipped, lambda of=of: pairs.sums(of, False)[0].lse_N
        kernel = "gradient" if features <= pairs.RESIDENT["bf16"] else "weights"
        shipped = pairs.meta(kernel, features, "bf16")
        yield (
            kernel,
            size,
            pairs,
            shipped,
            partial(lambda of, w: pairs.gradients(of, w, w, False)[0], of, one),
        )
    rows, keys = (20, 70) if setting.tiny else (256, 65536)
    q = random_rows(rows, 128, device=setting.device, dtype=setting.dtype)
    k = random_rows(keys, 128, device=setting.device, dtype=setting.dtype)
    k = torch.nn.functional.normalize(k.float(), dim=1).to(k.dtype)
    shipped = queue.meta(128, "bf16")
    yield (
        "queue",
        f"{rows} x {keys} x 128",
        queue,
        shipped,
        lambda: queue.one_pass(q, k[:rows], k, scale, -1, True)[1],
    )


def under(tile: Tile, kernel: str, module: Any, meta: Any, call: Callable[[], Tensor]) -> Tensor:
    """The result of a call with another tile of one of its kernels."""

    def asked(*of: Any) -> Tile:
        found: Tile = tile if len(of) == 2 or of[0] == kernel else meta(*of)
        return found

    with mock.patch.object(module, "meta", asked):
        return call()


def run(setting: Setting) -> Table:
    table = Table("Tiles", ["kernel", "size", "tile", "ms", "times shipped"])
    for kernel, size, module, shipped, call in works(setting):
        meta, wanted = module.meta, call()
        calls: dict[str, Callable[[], Tensor]] = {}
        for tile in candidates(kernel, shipped, setting.tiny):
            name = ", ".join(f"{k} {v}" for k, v in tile.items())
            tried = partial(under, tile, kernel, module, meta, call)
            try:
                apart = (tried() - wanted).norm() / wanted.norm()
                if apart < 1e-2:
                    calls[name] = tried
                    continue
                why = f"differs by {float(apart):.0e}"
            except Exception as error:  # the other tiles are still wanted
                why = f"fails: {told(error)}"
            table.rows.append({"kernel": kernel, "size": size, "tile": name, "ms": why})
            if setting.over:
                break
        times = race(calls, seconds=setting.row_s, least=1, most=20, device=setting.device)
        first = next(iter(times.values()))
        for name, spent in sorted(times.items(), key=lambda item: item[1].median):
            cells = {"ms": f"{1e3 * spent.median:.3f}", "times shipped": f"{spent.over(first):.2f}"}
            table.rows.append({"kernel": kernel, "size": size, "tile": name, **cells})
            setting.say(" | ".join(table.rows[-1].values()))
        if setting.over:
            table.note = "Ended by the time given."
            break
    return table


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--tiny", action="store_true", help="sizes of a smoke test")
    asked = parser.parse_args(arguments)
    until = time.monotonic() + asked.seconds
    setting = Setting(asked.out, asked.device, asked.tiny, until, row_s=0.05 if asked.tiny else 6.0)
    facts = machine.facts(asked.device)
    name = f"tiles_{machine.slug(asked.device)}_{facts['date']}"
    asked.out.mkdir(parents=True, exist_ok=True)
    report.write(asked.out, name, f"Tiles on a card, {facts['date']}", facts, [run(setting)])
    print(asked.out / f"{name}.md")


if __name__ == "__main__":
    main()
