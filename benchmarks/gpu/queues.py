"""G3: a MoCo queue of 65,536 keys, eager and as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu import floors
from benchmarks.gpu.losses import COLUMNS, NOTE
from benchmarks.gpu.setting import Setting
from benchmarks.problems import queue
from benchmarks.report import Table
from benchmarks.timing import race
from benchmarks.ways import Way, agreeing, compiled, present, reasons, told

SHAPES = [(256, 65536, 128), (256, 4096, 128), (1024, 65536, 128), (256, 65536, 256)]


def run(setting: Setting) -> Iterator[Table]:
    """Ours and dense, each eager and captured; lightly's memory bank."""
    table = Table("G3 MoCo", COLUMNS, note=NOTE)
    for shape in [(9, 8001, 24)] if setting.tiny else SHAPES:
        if setting.over:
            table.note += " Cut off by the section's time."
            break
        ways = queue(*shape, device=setting.device, dtype=setting.dtype)
        dense = ways["dense"]
        if isinstance(dense, Way):
            ways["compiled dense"] = compiled(dense.loss, *dense.leaves, backend=setting.compiler)
        ways = agreeing(ways, "dense")
        gone, head = present(ways), {"loss": "InfoNCE", "shape": " x ".join(map(str, shape))}
        calls: dict[str, Callable[[], object]] = {name: way.step for name, way in gone.items()}
        absent = reasons(ways)
        for name in ("ours", "dense"):
            captured = graph(gone[name], setting.device) if name in gone else "is not here"
            if isinstance(captured, str):
                absent[f"{name}, CUDA graph"] = captured
            else:
                calls[f"{name}, CUDA graph"] = captured
        times = race(calls, seconds=setting.row_s, device=setting.device)
        least, _ = floors.queue(*shape, setting.ceilings())
        for name, spent in times.items():
            cells = {
                "way": name,
                "ms (best)": f"{1e3 * spent.median:.4f} ({1e3 * spent.best:.4f})",
                "times ours": f"{spent.over(times['ours']):.2f}" if "ours" in times else "",
                "of the floor": f"{least / spent.median:.0%}",
            }
            table.rows.append(head | cells)
            table.details.append(head | {"way": name, "seconds": spent.summary(), "floor": least})
        table.rows.extend(head | {"way": name, "ms (best)": why} for name, why in absent.items())
        setting.say(f"{head['shape']} done")
        yield table


def graph(way: Way, device: str) -> Callable[[], object] | str:
    """What replays one step of the way, or the reason why it cannot be captured."""
    if device != "cuda":
        return "needs a CUDA device"
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                way.step()
        torch.cuda.current_stream().wait_stream(side)
        captured = torch.cuda.CUDAGraph()
        with torch.cuda.graph(captured):
            way.step()
    except RuntimeError as error:
        return f"is not captured: {told(error)}"
    return captured.replay
