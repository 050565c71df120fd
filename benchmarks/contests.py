"""Which losses are timed at which sizes, and what is wanted of ours there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import product

from benchmarks.problems import PROBLEMS
from benchmarks.report import Goal, Table
from benchmarks.timing import Times, race
from benchmarks.ways import Way, Ways, agreeing, compiled, present, reasons

NEVER_SLOWER = 0.95
PUBLIC = ("lightly", "open_clip", "pytorch-metric-learning")
COLUMNS = ["loss", "shape", "ours, ms (best)", "ours bf16, ms (best)", "dense", "definition"]
COLUMNS += ["compiled dense", "public", "dense / ours bf16"]
NOTE = """Milliseconds of forward and backward, median over rounds and in brackets the best; then
how many times as long as ours in float32 the others take, the median over rounds of the two times
in that round. dense: the shortest plain torch; definition: our reference form. A shape is pairs x
features, units x views x features, or queries x queue x features."""


@dataclass(frozen=True)
class Contest:
    """A loss at a size. least: by (slower way, ours), how many times as long it should take.

    few: ours and the dense ones alone, for more rounds.
    """

    problem: str
    shape: tuple[int, ...]
    least: dict[tuple[str, str], float] = field(default_factory=dict)
    compile: bool = False
    seconds: float = 6.0
    few: bool = False

    @property
    def title(self) -> str:
        return f"{self.problem} {' x '.join(map(str, self.shape))}"


AT_4096 = {("dense", "ours"): 4.0, ("compiled dense", "ours"): 2.5, ("lightly", "ours"): 8.0}
AT_4096 |= {("dense", "ours, bf16"): 7.0}
CONTESTS = [
    Contest("NT-Xent", (256, 128), compile=True),
    Contest("NT-Xent", (256, 512), compile=True),
    Contest("NT-Xent", (1024, 128), compile=True),
    Contest("NT-Xent", (1024, 512), compile=True),
    Contest("NT-Xent", (4096, 128), AT_4096, compile=True, seconds=30),
    Contest("NT-Xent", (4096, 512), compile=True, seconds=20),
    Contest("NT-Xent, mined", (128, 128)),
    Contest("SupCon", (256, 4, 128)),
    Contest("SupCon", (1024, 4, 128), seconds=10),
    Contest("InfoNCE", (256, 4096, 128)),
    Contest("InfoNCE", (256, 65536, 128), {("dense", "ours"): 3.5}, seconds=10),
    Contest("CLIP", (1024, 512)),
    Contest("CLIP", (4096, 512), {("open_clip", "ours"): 2.5}, seconds=20),
    Contest("sigmoid", (1024, 512)),
    Contest("sigmoid", (4096, 512), seconds=20),
]
SMALL = [
    Contest("NT-Xent", shape, seconds=3, few=True)
    for shape in product((2, 8, 32, 64, 128, 192), (32, 128, 2048))
]


def ways_of(contest: Contest) -> Ways:
    """All ways of the problem, with the compiled one where it is asked for."""
    ways = PROBLEMS[contest.problem](*contest.shape)
    if contest.few:
        return {name: ways[name] for name in ("dense", "ours", "definition")}
    dense = ways["dense"]
    if contest.compile and isinstance(dense, Way):
        ways |= {"compiled dense": compiled(dense.loss, *dense.leaves)}
    return ways


def held(contest: Contest, seconds: float | None = None) -> tuple[dict[str, Times], Ways]:
    """The times of all ways that can be gone and agree; the others give a reason."""
    ways = agreeing(ways_of(contest), "dense")
    gone = present(ways)
    calls = {name: way.step for name, way in gone.items()}
    return race(calls, seconds=seconds or contest.seconds), ways


def goals(contest: Contest, times: dict[str, Times]) -> Iterator[Goal]:
    """What is wanted of ways that are here; where ours fails or disagrees, its goals are missed."""
    for (slower, ours), wanted in contest.least.items():
        line = f"{contest.title}: {slower} / {ours}"
        if ours not in times:
            yield Goal(line, wanted, 0.0)
        elif slower in times:
            yield Goal(line, wanted, times[slower].over(times[ours]))


def never_slower(contest: Contest, times: dict[str, Times]) -> Goal:
    """That `auto` is no slower than the definition, our dense form."""
    ratio = times["definition"].over(times["ours"]) if "ours" in times else 0.0
    return Goal(f"{contest.title}: definition / ours", NEVER_SLOWER, ratio)


def slowest(goals: list[Goal]) -> list[Goal]:
    """One goal for those of all sizes: the one that is nearest to being missed."""
    if not goals:
        return []
    worst = min(goals, key=lambda goal: goal.measured)
    return [replace(worst, line=f"slowest of {len(goals)} sizes, {worst.line}")]


def add(table: Table, contest: Contest, times: dict[str, Times], ways: Ways) -> None:
    """One row of the table, and all its numbers as details."""
    shape = " x ".join(map(str, contest.shape))
    row = {"loss": contest.problem, "shape": shape} | dict.fromkeys(COLUMNS[2:], "")
    for name, column in (("ours", COLUMNS[2]), ("ours, bf16", COLUMNS[3])):
        if name in times:
            row[column] = f"{1e3 * times[name].median:.2f} ({1e3 * times[name].best:.2f})"
    against = {name: times[name].over(times["ours"]) for name in times if "ours" in times}
    for name in ("dense", "definition", "compiled dense"):
        row[name] = f"{against[name]:.2f}" if name in against else ""
    row["public"] = ", ".join(f"{name} {against[name]:.1f}" for name in PUBLIC if name in against)
    if "ours, bf16" in times:
        row["dense / ours bf16"] = f"{times['dense'].over(times['ours, bf16']):.2f}"
    for name, why in reasons(ways).items():
        row["public" if name in PUBLIC else name if name in row else COLUMNS[2]] += why
    table.rows.append(row)
    seconds = {name: spent.summary() for name, spent in times.items()}
    table.details.append({"contest": contest.title, "seconds": seconds, **reasons(ways)})
