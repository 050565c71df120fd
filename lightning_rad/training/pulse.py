"""What each rank last told the others of its progress, in the store that they met through."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict, dataclass

from lightning_rad.collectives import Board

_WAITING = ("torch/distributed", "lightning_rad/collectives")
_BACKWARD = "_engine_run_backward"  # where DDP's all-reduce is waited for


@dataclass(frozen=True)
class Pulse:
    """One rank's progress. posts: how often it has told; beats: its progress, whatever the step.

    waiting: whether its main thread waits for other ranks, as far as its stack shows.
    """

    rank: int
    host: str
    step: int
    beats: int
    posts: int
    place: str
    waiting: bool


def put_up(board: Board, pulse: Pulse) -> None:
    """Tell the others."""
    board.post(json.dumps(asdict(pulse)))


def read(board: Board) -> list[Pulse | None] | None:
    """The pulses by rank, None where one never told; None if the board does not answer."""
    lines = board.read()
    if lines is None:
        return None
    return [None if line is None else Pulse(**json.loads(line)) for line in lines]


def place_of(thread: int) -> tuple[str, bool]:
    """The innermost line of a thread's Python that is no library of torch, and whether it waits."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "nowhere", False
    stack = traceback.extract_stack(frame)
    waiting = any(part in f.filename for f in stack for part in _WAITING)
    waiting |= any(f.name == _BACKWARD for f in stack)
    own = [f for f in stack if "/torch/" not in f.filename] or list(stack)
    return f"{own[-1].filename.rpartition('/')[2]}:{own[-1].lineno} {own[-1].name}", waiting


def behind(before: list[Pulse | None], now: list[Pulse | None]) -> list[str]:
    """Who keeps the others waiting, in words; two readings some posts apart.

    Ranks that post no longer are stopped or gone; else those that made least progress; where all
    made the same, those that do not wait for others.
    """
    silent = [
        f"rank {r} (never heard of)" if new is None else _name(new, "last heard of at")
        for r, (old, new) in enumerate(zip(before, now, strict=True))
        if new is None or (old is not None and old.posts == new.posts)
    ]
    if silent:
        return silent
    pulses = [pulse for pulse in now if pulse is not None]
    least = min(pulse.beats for pulse in pulses)
    late = [p for p in pulses if p.beats == least]
    if len(late) == len(pulses):
        late = [p for p in pulses if not p.waiting] or pulses
    return [f"{_name(p)}, in {p.place}" for p in late]


def _name(pulse: Pulse, how: str = "at") -> str:
    return f"rank {pulse.rank} on {pulse.host} {how} step {pulse.step}"
