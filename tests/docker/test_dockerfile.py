"""The Dockerfile is clean, its packages are those that the tests ran with, and few files go in."""

import re
from pathlib import Path

import pytest

from tests.linters import complaints

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"


def pins(path: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==([^\s\\]+)", path.read_text(), re.MULTILINE)
    return {name.lower().replace("_", "-"): version for name, version in found}


def test_hadolint_finds_nothing() -> None:
    assert complaints("hadolint", DOCKER / "Dockerfile") == ""


def test_the_image_has_the_versions_that_the_tests_ran_with() -> None:
    tested, shipped = pins(ROOT / "constraints.txt"), pins(DOCKER / "packages.lock")
    other = {n: v for n, v in shipped.items() if n != "setuptools" and tested.get(n) != v}
    assert shipped
    assert not other, "make lock after a change of constraints.txt"


def test_every_dependency_of_the_project_is_locked() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    listed = text.partition("\ndependencies = [")[2].partition("\n]")[0]
    names = {n.lower() for n in re.findall(r'^ +"([A-Za-z0-9._-]+)', listed, re.MULTILINE)}
    assert len(names) > 5
    assert names <= pins(DOCKER / "packages.lock").keys()


@pytest.mark.parametrize("lock", ["build.lock", "packages.lock"])
def test_every_locked_package_has_a_hash(lock: str) -> None:
    blocks = re.split(r"^(?=[A-Za-z0-9])", (DOCKER / lock).read_text(), flags=re.MULTILINE)[1:]
    assert blocks
    assert all("--hash=sha256:" in block for block in blocks)


def test_what_the_dockerfile_copies_is_let_in_and_nothing_else() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    copied = set()
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.MULTILINE):
        copied |= set(line.split()[:-1])
    let_in = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == let_in
