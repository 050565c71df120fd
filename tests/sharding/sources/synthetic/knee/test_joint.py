"""What a knee has: grades as often as said, alike in both knees, and steady over the visits."""

from __future__ import annotations

import numpy as np
import pytest

from lightning_rad.sharding.sources.synthetic.knee.joint import (
    DEFINITE,
    GRADES,
    LATERAL,
    MEDIAL,
    NARROWED,
    PREVALENCE,
    SPACE,
    Wear,
    draw_grades,
    draw_wear,
)


def wears(grade: int, visit: int = 0, n: int = 400) -> list[Wear]:
    return [draw_wear(np.random.default_rng([grade, k]), grade, visit) for k in range(n)]


def test_grades_are_as_often_as_said_and_alike_in_both_knees() -> None:
    drawn = np.array([draw_grades(np.random.default_rng(k)) for k in range(6000)])
    for side in (0, 1):
        shares = np.bincount(drawn[:, side], minlength=GRADES) / len(drawn)
        assert shares == pytest.approx(PREVALENCE, abs=0.025)
    assert 0.4 < np.corrcoef(drawn.T)[0, 1] < 0.7


def test_spaces_narrow_and_osteophytes_grow_with_the_grade() -> None:
    spaces = [[w.space(w.worse) for w in wears(grade)] for grade in range(GRADES)]
    assert np.mean(spaces, axis=1) == pytest.approx(SPACE, abs=0.01)
    many = [np.mean([len(w.spurs) for w in wears(grade)]) for grade in range(GRADES)]
    longest = [
        np.mean([max((s.length for s in w.spurs), default=0.0) for w in wears(grade)])
        for grade in range(GRADES)
    ]
    assert all(np.diff(many) > 0)
    assert all(np.diff(longest) > 0)


def test_what_defines_a_grade_is_there() -> None:
    for grade in range(GRADES):
        for wear in wears(grade):
            definite = [s for s in wear.spurs if s.length >= DEFINITE]
            assert bool(definite) == (grade >= 2)
            assert wear.space(wear.worse) <= wear.space(-wear.worse)
            if grade >= 3:
                assert wear.space(wear.worse) < NARROWED
                assert len(definite) >= 3
            if grade < 2:
                assert wear.space(wear.worse) > NARROWED
            assert (wear.deformity >= 0.5) == (grade == 4)


def test_most_knees_wear_on_the_inner_side() -> None:
    sides = [wear.worse for wear in wears(2)]
    assert sides.count(MEDIAL) + sides.count(LATERAL) == len(sides)
    assert 0.65 < sides.count(MEDIAL) / len(sides) < 0.85


def test_a_knee_never_gets_better_from_visit_to_visit() -> None:
    for grade in range(GRADES):
        for first, later in zip(wears(grade, 0, 60), wears(grade, 3, 60), strict=True):
            assert later.worse == first.worse
            assert later.space(later.worse) <= first.space(first.worse)
            pairs = zip(first.spurs, later.spurs, strict=True)
            assert all(
                (a.bone, a.margin) == (b.bone, b.margin) and b.length >= a.length for a, b in pairs
            )
