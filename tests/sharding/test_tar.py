import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_rad.sharding.tar import ShardError, walk

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
WORD = st.text("abcdefgé", min_size=1, max_size=30)


def make_tar(path, members, format=tarfile.USTAR_FORMAT):
    with tarfile.open(path, "w", format=format) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tars")


@given(
    st.lists(
        st.tuples(st.lists(WORD, min_size=1, max_size=9), st.binary(max_size=1500)), max_size=6
    ),
    st.sampled_from(FORMATS[1:]),
)
@settings(deadline=None, max_examples=40)
def test_members_lie_where_the_standard_library_finds_them(folder, members, format):
    named = [(f"{i}{'/'.join(words)}.jpg", data) for i, (words, data) in enumerate(members)]
    path = make_tar(folder / "t.tar", named, format)
    with tarfile.open(path) as tar:
        expected = [(m.name, m.offset_data, m.size) for m in tar.getmembers()]
    found = [(m.name, m.offset, m.size) for m in walk(path)]
    assert found == expected
    raw = path.read_bytes()
    assert [raw[m.offset : m.offset + m.size] for m in walk(path)] == [d for _, d in named]


@given(st.integers(0, 4095))
@settings(deadline=None, max_examples=40)
def test_a_tar_cut_anywhere_before_its_end_is_refused_with_the_offset(folder, cut):
    whole = make_tar(folder / "w.tar", [("a.jpg", b"x" * 700), ("b.jpg", b"y" * 1300)]).read_bytes()
    end = 512 + 1024 + 512 + 1536  # two headers, their data in blocks: where the marker begins
    path = folder / "cut.tar"
    path.write_bytes(whole[: min(cut, end)])
    with pytest.raises(ShardError, match=r"cut\.tar: (truncated|damaged).* offset \d+"):
        list(walk(path))


@pytest.mark.parametrize("name", ["../a.jpg", "x/../../a.jpg", "/etc/a.jpg"])
@pytest.mark.parametrize("format", FORMATS)
def test_a_name_that_leaves_the_archive_is_refused(tmp_path, name, format):
    path = make_tar(tmp_path / "t.tar", [("fine.jpg", b"1"), (name, b"2")], format)
    with pytest.raises(ShardError, match="leaves the archive"):
        list(walk(path))


def test_a_long_name_that_leaves_the_archive_is_refused(tmp_path):
    name = "a/" * 80 + "../" * 90 + "x.jpg"
    for format in FORMATS[1:]:
        path = make_tar(tmp_path / f"{format}.tar", [(name, b"2")], format)
        with pytest.raises(ShardError, match="leaves the archive"):
            list(walk(path))


def test_links_are_refused_and_folders_passed_over(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        tar.add(tmp_path, "folder", recursive=False)
        link = tarfile.TarInfo("a.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "b.jpg"
        tar.addfile(link)
    with pytest.raises(ShardError, match=r"'a\.jpg'.*no file but a link"):
        list(walk(tmp_path / "t.tar"))
    with tarfile.open(tmp_path / "d.tar", "w") as tar:
        tar.add(tmp_path, "folder", recursive=False)
    assert list(walk(tmp_path / "d.tar")) == []


def test_a_second_tar_appended_to_the_first_is_not_lost_in_silence(tmp_path):
    one = make_tar(tmp_path / "one.tar", [("a.jpg", b"1")]).read_bytes()
    two = tmp_path / "two.tar"
    two.write_bytes(one + one)
    with pytest.raises(ShardError, match="data after the end-of-archive marker"):
        list(walk(two))


def test_a_flipped_bit_in_a_header_is_refused(tmp_path):
    path = make_tar(tmp_path / "t.tar", [("a.jpg", b"1" * 600), ("b.jpg", b"2")])
    data = bytearray(path.read_bytes())
    data[512 + 1024 + 3] ^= 4
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"damaged: .* offset 1536"):
        list(walk(path))
