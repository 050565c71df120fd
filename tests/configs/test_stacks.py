"""Every config parses in a stack, and what it does not know is refused by name."""

from pathlib import Path

import pytest
import yaml

from tests.command import lightning_rad

CONFIGS = Path(__file__).parents[2] / "configs"
DEFAULT = {"objective": "simclr_small", "view": "two_view_small", "data": "demo", "scale": "cpu"}
AXES = (*DEFAULT, "log")
FILES = [(axis, file.stem) for axis in AXES for file in sorted((CONFIGS / axis).glob("*.yaml"))]


def stack(**names: str) -> list[str]:
    """The arguments that stack base and one file an axis."""
    files = ["base.yaml", *(f"{axis}/{name}.yaml" for axis, name in (DEFAULT | names).items())]
    return [word for file in files for word in ("-c", str(CONFIGS / file))]


def printed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, dict]:
    with pytest.raises(SystemExit) as ended:
        lightning_rad("fit", *arguments, "--print_config")
    assert ended.value.code == 0
    return dict(yaml.safe_load(capsys.readouterr().out))


@pytest.mark.parametrize(("axis", "name"), FILES, ids=lambda part: part)
def test_each_file_parses_in_a_stack(
    axis: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = printed(stack(**{axis: name}), capsys)
    sizes = {view["init_args"]["size"] for view in config["data"]["views"]}
    assert sizes == {config["data"]["evaluation"]["view"]["init_args"]["size"]}
    assert config["data"]["global_batch"] % config["data"]["shuffle"]["groups"] == 0
    ranks = int(config["trainer"]["devices"]) * config["trainer"]["num_nodes"]
    assert config["data"]["shuffle"]["groups"] % ranks == 0 or name != "radiographs"


def test_the_command_line_wins_and_everything_lands_in_the_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    changes = [
        "--run",
        "runs/x",
        "--model.init_args.temperature",
        "0.3",
        "--data.loading.threads=5",
    ]
    config = printed([*stack(), *changes], capsys)
    assert config["model"]["init_args"]["temperature"] == 0.3
    assert config["data"]["loading"]["threads"] == 5
    assert config["run"] == "runs/x"


def test_interpolation_works_within_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text("trainer:\n  max_steps: 40\n  log_every_n_steps: ${trainer.max_steps}\n")
    config = printed([*stack(), "-c", str(extra)], capsys)
    assert config["trainer"]["log_every_n_steps"] == 40


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--model.init_args.temprature", "0.1"], "temprature"),
        (["--data.shufle.seed", "1"], "shufle"),
        (["--trainer.max_stepz", "1"], "max_stepz"),
        (["--data.shuffle.groups", "many"], "groups"),
        (["--data.loading.render", "gpu"], "render"),
        (["-c", "no_such_file.yaml"], "no_such_file"),
    ],
)
def test_a_mistyped_key_or_value_is_refused_by_name(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        lightning_rad("fit", *stack(), *arguments)
    assert ended.value.code == 2
    assert named in capsys.readouterr().err


def test_a_mistyped_key_in_a_file_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = tmp_path / "extra.yaml"
    extra.write_text("data:\n  shuffle:\n    grups: 8\n")
    with pytest.raises(SystemExit) as ended:
        lightning_rad("fit", *stack(), "-c", str(extra))
    assert ended.value.code == 2
    assert "grups" in capsys.readouterr().err
