"""The log reaches the user once and on one rank; an error is what the class said."""

import logging

import pytest
from jsonargparse import ArgumentParser
from pytorch_lightning.utilities import rank_zero_only

from lightning_rad.training.console import reason, told

log = logging.getLogger("lightning_rad.nn.pretrained")


@pytest.mark.parametrize(("rank", "heard"), [(0, "a count\na warning\n"), (1, "a warning\n")])
def test_counts_are_told_on_rank_0_and_warnings_on_all(
    rank: int, heard: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rank_zero_only, "rank", rank, raising=False)
    for _ in range(2):  # a second command in one process says nothing twice
        with told():
            log.info("a count")
            log.warning("a warning")
        assert capsys.readouterr().err == heard
    log.info("outside")
    assert capsys.readouterr().err == ""


class Inner:
    def __init__(self, size: int = 1) -> None:
        raise ValueError(f"size: {size} is - not good: see 'x'")


class Outer:
    def __init__(self, inner: Inner | None = None) -> None: ...


@pytest.mark.parametrize("key", ["inner", "outer.inner"])
def test_an_error_of_an_optional_class_is_the_classes_own_line(key: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    name = key.partition(".")[0]
    parser.add_argument(f"--{name}", type={"inner": Inner, "outer": Outer}[name] | None)
    made = {"class_path": f"{__name__}.Inner", "init_args": {"size": 3}}
    config = made
    if "." in key:
        config = {"class_path": f"{__name__}.Outer", "init_args": {"inner": made}}
    with pytest.raises(ValueError, match="not good") as said:
        parser.instantiate(parser.parse_object({name: config}))
    assert "\n" in str(said.value)
    assert reason(str(said.value)) == "size: 3 is - not good: see 'x'"


def test_any_other_error_is_left_as_it_is() -> None:
    assert reason("two\nlines") == "two\nlines"
