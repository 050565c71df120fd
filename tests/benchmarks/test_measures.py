"""Times are taken in turns, ratios round by round, memory without what a parent held."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.contests import Contest, goals, never_slower, slowest
from benchmarks.memory import measured
from benchmarks.report import Goal, Table
from benchmarks.timing import Times, race


def test_contenders_take_turns_and_a_slow_round_meets_all() -> None:
    called: list[str] = []

    def contender(name: str, seconds: float) -> None:
        called.append(name)
        time.sleep(seconds)

    pace = {"a": 0.02, "b": 0.04}
    calls = {name: lambda name=name: contender(name, pace[name]) for name in pace}
    times = race(calls, seconds=0, least=4)
    assert called[-8:] == ["a", "b", "b", "a"] * 2
    assert 1.5 < times["b"].over(times["a"]) < 2.5


def test_a_ratio_is_of_samples_of_one_round() -> None:
    drifting, twice = Times([1.0, 2.0, 8.0]), Times([2.0, 4.0, 16.0])
    assert twice.over(drifting) == 2
    assert (twice.median, twice.best) == (4, 2)


def test_goals_count_ours_that_failed_and_not_a_public_way_that_is_absent() -> None:
    contest = Contest("NT-Xent", (4, 4), {("dense", "ours"): 4.0, ("lightly", "ours"): 8.0})
    slow = {"dense": Times([4.1]), "ours": Times([1.0]), "definition": Times([0.9])}
    found = {goal.line.partition(": ")[2]: goal.met for goal in goals(contest, slow)}
    assert found == {"dense / ours": True}
    assert not any(goal.met for goal in goals(contest, {"dense": Times([1.0])}))
    even = [
        never_slower(contest, {name: slow[name] for name in names}) for names in (slow, ["dense"])
    ]
    assert [goal.measured for goal in even] == [0.9, 0.0]
    assert [goal.line for goal in slowest(even[:1])] == [f"slowest of 1 sizes, {even[0].line}"]


def test_results_have_the_same_numbers_as_json_and_as_markdown(tmp_path: Path) -> None:
    table = report.goals_table([Goal("a line", 64, 70.5, most=True, unit="MiB")])
    report.write(tmp_path, "x", "Title", {"threads": "2"}, [table, Table("empty", ["one"])])
    text, content = (tmp_path / "x.md").read_text(), json.loads((tmp_path / "x.json").read_text())
    assert "| a line | at most 64 MiB | 70.50 MiB | MISSED |" in text
    assert content["tables"][0]["rows"][0]["measured"] == "70.50 MiB"
    assert content["machine"] == {"threads": "2"}


def test_memory_is_that_of_the_step_whatever_the_parent_held() -> None:
    """The dense step at 1,024 pairs holds two matrices of 16 MiB at least, and ours none."""
    held = bytearray(400 << 20)
    held[::4096] = b"x" * len(held[::4096])
    dense = measured("NT-Xent", "dense", 1024, 16)["mib"]
    ours = measured("NT-Xent", "ours", 1024, 16)["mib"]
    assert 32 < dense < 200
    assert ours < 16


def test_memory_of_a_way_that_is_not_there_is_refused_in_one_line() -> None:
    with pytest.raises(RuntimeError, match="NT-Xent, nobody: KeyError"):
        measured("NT-Xent", "nobody", 4, 4)
