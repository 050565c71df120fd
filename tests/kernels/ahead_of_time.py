"""Compile, without a GPU, what the Triton forms would launch on one: `python ... > launches.json`.

Runs the fused forms on tensors of a CPU with a driver that says it is an sm_90 and with launches
that compile and stop there. Prints, for each different kernel, what the assembler says about it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

TARGET = GPUTarget("cuda", 90, 32)
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


class Driver:
    """Enough of a driver to compile by."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, _: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return TARGET


def resources(kernel: Any) -> dict[str, Any]:
    """Shared memory and registers of a kernel, bytes of registers spilled, and its products."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [str(TOOLS / "cuobjdump"), "-res-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {name: int(value) for name, value in re.findall(r"([A-Z]+):(\d+)", text)}
    return {
        "shared": kernel.metadata.shared,
        "registers": usage["REG"],
        "spilled": usage["STACK"] + usage["LOCAL"],
        "wgmma": "wgmma.mma_async" in kernel.asm["ptx"],
    }


def main() -> None:
    from tests.kernels.launches import launch_everything

    compiled: dict[str, dict[str, Any]] = {}
    run = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        kernel = run(self, *args, grid=grid, warmup=True, **kwargs)
        if kernel.hash not in compiled:
            flags = {k: v for k, v in kwargs.items() if isinstance(v, bool | int | str)}
            types = sorted({str(a.dtype)[6:] for a in args if isinstance(a, torch.Tensor)})
            name = f"{self.fn.__module__.split('.')[-2]}.{self.fn.__name__}"
            compiled[kernel.hash] = {"kernel": name, "types": types, **flags, **resources(kernel)}

    triton.runtime.driver.set_active(Driver())
    JITFunction.run = compile_only  # type: ignore[method-assign]
    launch_everything()
    json.dump(list(compiled.values()), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
