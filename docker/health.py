"""HEALTHCHECK of the image: does the training in this container still move?

A training touches the file LIGHTNING_RAD_HEARTBEAT after each batch; older than
LIGHTNING_RAD_STALE_MINUTES (30) means unhealthy. So does a `fit` that came to no first batch in
that time, such as one whose rendezvous waits for a box that never comes. Other commands have no
batches: they are healthy as long as they run, and their exit status tells the rest. It looks from
outside the process, so that it also sees a process that can no longer look after itself.
"""

import os
import sys
import time
from pathlib import Path


def health(heartbeat: Path, process: Path, limit_minutes: float) -> tuple[bool, str]:
    """Healthy or not, and why in one line; `process` is the folder of the command in /proc."""
    if heartbeat.exists():
        since, what = heartbeat.stat().st_mtime, "the last batch"
    elif b"fit" in (process / "cmdline").read_bytes().split(b"\0"):
        since, what = process.stat().st_mtime, "the start, and no batch yet"
    else:
        return True, "no training in this container"
    minutes = max(0.0, time.time() - since) / 60
    return minutes <= limit_minutes, f"{minutes:.1f} minutes since {what}; limit {limit_minutes:g}"


if __name__ == "__main__":
    healthy, told = health(
        Path(os.environ["LIGHTNING_RAD_HEARTBEAT"]),
        Path(sys.argv[1] if len(sys.argv) > 1 else "/proc/1"),
        float(os.environ.get("LIGHTNING_RAD_STALE_MINUTES", "30")),
    )
    sys.stdout.write(f"{told}\n")
    sys.exit(not healthy)
