"""Threads that work in order of need, and let a process end."""

import subprocess
import sys
import threading
import time

import pytest

from lightning_rad.storage.lanes import Lanes


def test_the_lowest_need_begins_first_then_in_order() -> None:
    lanes, gate, begun = Lanes(1, "test"), threading.Event(), list[str]()
    first = lanes.submit(0, gate.wait)
    time.sleep(0.05)  # it is under way
    waiting = [
        lanes.submit(need, lambda name=name: begun.append(name))
        for need, name in ((5, "b"), (9, "c"), (1, "a"), (9, "d"))
    ]
    gate.set()
    for each in (first, *waiting):
        each.result(5)
    assert begun == ["a", "b", "c", "d"]


def test_an_error_is_kept_for_who_asks_and_the_lane_goes_on() -> None:
    lanes = Lanes(1, "test")
    failed, after = lanes.submit(0, lambda: 1 // 0), lanes.submit(1, lambda: 7)
    assert after.result(5) == 7
    with pytest.raises(ZeroDivisionError):
        failed.result()


def test_what_was_taken_back_is_not_done() -> None:
    lanes, gate, done = Lanes(1, "test"), threading.Event(), list[int]()
    lanes.submit(0, gate.wait)
    time.sleep(0.05)
    assert lanes.submit(1, lambda: done.append(1)).cancel()
    gate.set()
    lanes.submit(2, int).result(5)
    assert not done


def test_a_process_ends_though_much_is_still_to_be_fetched() -> None:
    code = (
        "import time; from lightning_rad.storage.lanes import Lanes\n"
        "lanes = Lanes(2, 'x')\n"
        "for n in range(100): lanes.submit(n, lambda: time.sleep(5))\n"
    )
    begun = time.monotonic()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    assert time.monotonic() - begun < 20
