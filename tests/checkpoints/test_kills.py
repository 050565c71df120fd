"""SIGKILL at any moment of saving: the newest is whole and none that was committed is lost."""

import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from lightning_rad.checkpoints import Keep, Writer, named, newest, read, read_contents

_context = get_context("forkserver")


def save_on(folder: Path, step: int, pipe: Connection) -> None:
    """Save one step after the other and tell each that is committed."""
    torch.set_num_threads(1)
    writer, x = Writer(), torch.zeros(40_000)
    pipe.send(step)
    while True:
        step += 1
        tree = {"x": x.fill_(step), "step": step}
        writer.save(tree, folder / named(step), step=step, keep=Keep(2))
        assert writer.wait() is None
        pipe.send(step)


def committed(pipe: Connection) -> int:
    """The last step that was told before the process died."""
    step = -1
    try:
        while True:
            step = pipe.recv()
    except EOFError:
        return step


def test_twenty_kills_lose_nothing_that_was_committed(
    tmp_path: Path, fault: Callable[..., None]
) -> None:
    generator = random.Random(0)
    step = parts = 0
    for _ in range(20):
        here, there = _context.Pipe(duplex=False)
        process = _context.Process(target=save_on, args=(tmp_path, step, there), daemon=True)
        process.start()
        there.close()
        assert here.recv() == step
        time.sleep(generator.uniform(0.01, 0.2))
        assert process.pid
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        last = committed(here)
        found = newest(tmp_path)  # raises where none is whole
        parts += len(list(tmp_path.glob("*.part")))
        if found is None:
            assert last <= 0
            continue
        step = read_contents(found).step
        assert step >= last
        loaded = read(found)
        assert loaded["step"] == step
        assert torch.equal(loaded["x"], torch.full((40_000,), float(step)))
    assert step > 20
    assert parts  # some were killed in the middle of a save
    fault(
        "SIGKILL while a checkpoint is written",
        injected="20 times, at random moments",
        outcome=f"{parts} left half-written, never read; what was told is there",
        lost=0,
        identical="bits, what is read",
    )
