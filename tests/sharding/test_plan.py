from collections import defaultdict

from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.sharding.identity import Identity
from lightning_rad.sharding.plan import make_plan
from lightning_rad.sharding.source import PlannedStudy
from tests.sharding.phantoms import recipe

STUDY = st.tuples(
    st.sampled_from([f"p{i}" for i in range(9)]),
    st.sampled_from("abc"),
    st.integers(1, 7),
    st.sampled_from([None, None, None, "train", "test"]),
)


class Fixed:
    def __init__(self, studies):
        self.studies = studies

    def plan(self):
        rows = enumerate(self.studies)
        return [
            PlannedStudy(p, s, tuple((i, k) for k in range(n)), x) for i, (p, s, n, x) in rows
        ], []


def plan_of(studies, salt=b"s", **changes):
    return make_plan(Fixed(studies), recipe(**changes), Identity(salt, "tests"))


@given(st.lists(STUDY, max_size=40), st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_every_study_is_placed_once_or_refused_and_no_patient_is_torn(studies, per_shard):
    plan = plan_of(studies, images_per_shard=per_shard)
    placed = [(job, study) for job in plan.jobs for study in job.studies]
    assert len(placed) + len(plan.rejected) == len(studies)
    assert len({s.key for _, s in placed}) == len(placed)
    jobs_of, splits_of = defaultdict(set), defaultdict(set)
    for job, study in placed:
        jobs_of[study.planned.patient].add(job.name)
        splits_of[study.planned.patient].add(study.split)
        assert job.split == study.split == job.name.split("-")[0]
    assert all(len(jobs) == 1 for jobs in jobs_of.values())
    assert all(len(splits) == 1 for splits in splits_of.values())
    for patient, (split,) in splits_of.items():
        official = {x for p, _, _, x in studies if p == patient} - {None}
        assert official <= {split}


@given(st.lists(STUDY, max_size=40), st.integers(1, 30))
@settings(deadline=None, max_examples=60)
def test_shards_exceed_their_aim_by_less_than_one_patient(studies, per_shard):
    plan = plan_of(studies, images_per_shard=per_shard)
    for job in plan.jobs:
        sizes = defaultdict(int)
        for study in job.studies:
            sizes[study.patient] += len(study.planned.images)
        assert job.images < per_shard + max(sizes.values())
    for split in ("train", "val", "test"):
        names = [job.name for job in plan.jobs if job.split == split]
        assert names == [f"{split}-{i:06d}" for i in range(len(names))]


def test_shards_of_small_patients_are_of_even_size():
    plan = plan_of([(f"p{i}", "a", 1, "train") for i in range(101)], images_per_shard=25)
    assert sorted(job.images for job in plan.jobs) == [20, 20, 20, 20, 21]


def test_a_patients_studies_keep_the_sources_order_and_the_patients_do_not():
    plan = plan_of([(f"p{i}", s, 1, "train") for i in range(50) for s in "bac"])
    order = [s.planned for job in plan.jobs for s in job.studies]
    assert [s.study for s in order] == ["b", "a", "c"] * 50
    assert [s.patient for s in order] != [f"p{i}" for i in range(50) for _ in range(3)]


def test_refusals_say_which_kind_and_name_no_patient():
    plan = plan_of(
        [
            ("Smith", "a", 1, "train"),
            ("Smith", "b", 1, "test"),
            ("Jones", "a", 1, None),
            ("Jones", "a", 2, None),
            ("", "a", 1, None),
            ("Miller", "a", 0, None),
        ]
    )
    reasons = sorted(r.reason for r in plan.rejected)
    assert reasons == [
        "duplicate key: this study was planned before",
        "patient in two official splits: test and train",
        "patient in two official splits: test and train",
        "study without images",
        "study without patient",
    ]
    assert not any(name in repr(plan.rejected) for name in ("Smith", "Jones", "Miller"))


def test_the_digest_follows_table_recipe_and_salt():
    studies = [(f"p{i}", "a", 1, None) for i in range(9)]
    digests = {
        plan_of(studies).digest,
        plan_of(studies[:-1]).digest,
        plan_of(studies, salt=b"t").digest,
        plan_of(studies, images_per_shard=3).digest,
        plan_of([*studies[:-1], ("p8", "a", 2, None)]).digest,
    }
    assert len(digests) == 5
    assert plan_of(studies).digest in digests


def test_a_source_whose_software_changed_its_pixels_is_another_plan():
    source = Fixed([("p", "a", 1, None)])
    digests = set()
    for version in (0, 1, 2):
        source.version = version
        digests.add(make_plan(source, recipe(), Identity(b"s", "tests")).digest)
    assert len(digests) == 3


@given(st.lists(st.text(min_size=1, max_size=8), unique=True, max_size=30))
@settings(deadline=None, max_examples=30)
def test_two_sets_of_one_namespace_and_salt_split_their_patients_alike(patients):
    def splits(study):
        plan = plan_of([(p, study, 1, None) for p in patients], name=study)
        return {s.planned.patient: s.split for job in plan.jobs for s in job.studies}

    assert splits("images") == splits("reports")
