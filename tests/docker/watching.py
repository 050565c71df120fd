"""What a container does: whether it trains, how it ended, what it said."""

import json
import time
from collections.abc import Callable
from typing import Any

from tests.docker.engine import Engine


def until(condition: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.3)


def trains(engine: Engine, name: str) -> Callable[[], bool]:
    def beats() -> bool:
        seen = engine("exec", name, "test", "-e", "/tmp/heartbeat", check=False).returncode == 0
        assert seen or state(engine, name)["Running"], said(engine, name)
        return seen

    return beats


def state(engine: Engine, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(engine("inspect", name).stdout)[0]["State"]
    return found


def ended(engine: Engine, name: str, seconds: float = 120) -> int:
    until(lambda: not state(engine, name)["Running"], f"the end of {name}", seconds)
    return int(state(engine, name)["ExitCode"])


def said(engine: Engine, name: str) -> str:
    logs = engine("logs", name, check=False)
    return logs.stdout + logs.stderr
