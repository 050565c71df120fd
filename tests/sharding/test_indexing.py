import io
import tarfile

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.manifest import read_index
from lightning_rad.sharding.indexing import Layout, index_shard, samples, scan, short_key
from lightning_rad.sharding.tar import ShardError
from tests.sharding.test_tar import make_tar

NAME = st.from_regex(
    r"(\./)?(d\.x/)?[ab]{1,3}\.[01]{0,2}\.?(JPG|jpg|png|json|txt|cls)", fullmatch=True
)


def nobody(sample, metadata):
    return 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tars")


@given(st.lists(NAME, max_size=12))
@settings(deadline=None, max_examples=80)
def test_samples_are_those_that_webdataset_groups_unless_it_would_split_or_lose_some(folder, names):
    members = [(name, str(i).encode()) for i, name in enumerate(names)]
    path = make_tar(folder / "t.tar", members)
    try:
        ours = [(s.key, sorted(s.members)) for s in samples(path)]
    except ShardError:
        ours = None
    stream = webdataset.tariterators.tar_file_expander(
        [{"url": "t", "stream": io.BytesIO(path.read_bytes())}]
    )
    try:
        grouped = list(webdataset.tariterators.group_by_keys(stream))
        theirs = [(s["__key__"], sorted(k for k in s if k[0] != "_")) for s in grouped]
    except ValueError:
        theirs = []
    keys = [key for key, _ in theirs]
    assert ours == (theirs if len(set(keys)) == len(keys) and (theirs or not names) else None)


@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.booleans(), st.booleans(), st.integers(0, 1600)),
        min_size=1,
        max_size=8,
    )
)
@settings(deadline=None, max_examples=30)
def test_the_index_points_at_the_bytes_of_every_member(folder, studies):
    members, pictures, reports = [], [], []
    for row, (images, report, known, size) in enumerate(studies):
        for n in range(images):
            data = bytes([row, n]) * (size + n)
            members.append((f"s{row}.{n:02d}.jpg", data))
            pictures.append((row, n, data))
        members += [(f"s{row}.json", b'{"patient": "%016x"}' % (row + 1))] if known else []
        members += [(f"s{row}.txt", b"report %d" % row)] if report else []
        reports.append(b"report %d" % row if report else b"")
    tar, index = make_tar(folder / "i.tar", members), folder / "i.idx"
    index_shard(
        tar,
        index,
        shard_file="i.tar",
        index_file="i.idx",
        split="train",
        layout=Layout(),
        patient_of=lambda _, metadata: int(metadata.get("patient", "0"), 16),
    )
    raw = tar.read_bytes()
    rows, images = read_index(index)
    cut = [(i["study"], i["ordinal"], raw[i["offset"] : i["offset"] + i["size"]]) for i in images]
    assert cut == pictures
    found = [raw[r["report_offset"] : r["report_offset"] + r["report_size"]] for r in rows]
    assert found == reports
    assert [int(r["patient"]) for r in rows] == [
        row + 1 if known else 0 for row, (_, _, known, _) in enumerate(studies)
    ]


def test_a_member_that_recurs_and_a_key_that_comes_back_are_refused(tmp_path):
    double = make_tar(tmp_path / "double.tar", [("a.jpg", b"1"), ("a.jpg", b"2")])
    with pytest.raises(ShardError, match=r"double\.tar: duplicate member 'a\.jpg' at offset 1536"):
        list(samples(double))
    torn = make_tar(tmp_path / "torn.tar", [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"3")])
    with pytest.raises(ShardError, match=r"torn\.tar: key 'a' comes back at offset 2560"):
        list(samples(torn))


def test_samples_without_an_image_and_other_members_are_counted(tmp_path):
    tar = make_tar(tmp_path / "t.tar", [("a.cls", b"1"), ("b.jpg", b"2"), ("b.mask.png", b"3")])
    studies, images, tally = scan(tar, Layout(), nobody)
    assert (len(studies), len(images), tally.skipped, tally.ignored) == (1, 1, 1, 2)


def test_malformed_json_names_the_sample(tmp_path):
    tar = make_tar(tmp_path / "t.tar", [("a.jpg", b"1"), ("a.json", b"{")])
    with pytest.raises(ShardError, match=r"t\.tar: the JSON of 'a' is malformed"):
        scan(tar, Layout(), nobody)


def test_long_keys_stay_apart():
    one, other = "k" * 100 + "1", "k" * 100 + "2"
    assert short_key("plain") == b"plain"
    assert len({short_key(one), short_key(other)}) == 2
    assert all(len(short_key(key)) == 64 for key in (one, other))


def test_keys_that_webdataset_joins_to_one_sample_keep_their_image_order(tmp_path):
    names = [f"k.{n:03d}.png" for n in range(120)]
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name))
    (tmp_path / "t.tar").write_bytes(stream.getvalue())
    _, images, _ = scan(tmp_path / "t.tar", Layout(), nobody)
    assert images["ordinal"].tolist() == list(range(120))
