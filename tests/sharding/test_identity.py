import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_rad.sharding.identity import Identity, load_salt

SALT = b"\1" * 32
SHARES = {"train": 0.6, "val": 0.25, "test": 0.15}


@given(st.text(min_size=1), st.text(min_size=1))
def test_hashes_are_sixteen_digits_and_depend_on_salt_namespace_and_identifier(patient, other):
    me = Identity(SALT, "site").patient(patient)
    assert len(me) == 16
    assert int(me, 16) != 0
    assert (me == Identity(SALT, "site").patient(other)) == (patient == other)
    assert me != Identity(b"\2" * 32, "site").patient(patient)
    assert me != Identity(SALT, "elsewhere").patient(patient)
    assert me != Identity(SALT, "site").study(patient, patient)


def test_joined_identifiers_cannot_be_cut_elsewhere():
    identity = Identity(SALT, "site")
    assert identity.study("ab", "c") != identity.study("a", "bc")
    assert Identity(SALT, "sitea").patient("b") != Identity(SALT, "site").patient("ab")


def test_shares_of_the_splits_are_met_within_sampling_error():
    identity = Identity(SALT, "site")
    splits = [identity.split(str(p), SHARES) for p in range(4000)]
    for name, share in SHARES.items():
        assert abs(splits.count(name) / 4000 - share) < 0.03  # four standard errors


def test_a_larger_training_share_moves_nobody_out_of_training():
    identity = Identity(SALT, "site")
    for patient in map(str, range(300)):
        if identity.split(patient, {"train": 0.5, "test": 0.5}) == "train":
            assert identity.split(patient, {"train": 0.8, "val": 0.1, "test": 0.1}) == "train"


def test_a_split_without_share_gets_nobody():
    identity = Identity(SALT, "site")
    splits = {identity.split(str(p), {"train": 1.0, "val": 0.0, "test": 0}) for p in range(200)}
    assert splits == {"train"}


def test_a_salt_file_is_made_once_for_its_owner_alone(tmp_path, capfd):
    path = tmp_path / "deep" / "salt"
    first = load_salt(None, path)
    assert len(first) == 32
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    assert "made the secret salt" in capfd.readouterr().err
    assert load_salt(None, path) == first
    assert capfd.readouterr().err == ""
    assert load_salt(None, tmp_path / "another") != first
    assert sorted(p.name for p in path.parent.iterdir()) == ["salt"]


def test_argument_goes_before_environment_goes_before_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    home = load_salt(None, None)
    assert (tmp_path / ".config/lightning_rad/salt").read_text().strip() == home.hex()
    monkeypatch.setenv("LIGHTNING_RAD_SALT_FILE", str(tmp_path / "env"))
    environment = load_salt(None, None)
    argument = load_salt(None, tmp_path / "argument")
    assert len({home, environment, argument}) == 3
    assert load_salt(None, None) == environment


def test_the_public_salt_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_salt("public", None) == load_salt("public", tmp_path / "unread")
    assert list(tmp_path.iterdir()) == []


def test_a_salt_file_among_the_shards_is_refused_and_not_made(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "out")
    for path in (tmp_path / "out" / "salt", tmp_path / "link" / "deep" / "salt"):
        with pytest.raises(ValueError, match=r"salt_file: .* lies in .*out, the folder of the sh"):
            load_salt(None, path, apart_from=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert len(load_salt(None, tmp_path / "outside", apart_from=tmp_path / "out")) == 32


def test_a_damaged_salt_file_is_an_error_not_another_salt(tmp_path):
    (tmp_path / "salt").write_text("abc\n")
    with pytest.raises(ValueError, match=r"salt: a salt file holds 64 hexadecimal digits"):
        load_salt(None, tmp_path / "salt")
