"""Every config parses in a stack, and what it does not know is refused by name."""

from pathlib import Path

import pytest
import yaml

from tests.command import lightning_rad, refused

CONFIGS = Path(__file__).parents[2] / "configs"
DEFAULT = {"objective": "simclr_small", "view": "two_view_small", "data": "demo", "scale": "cpu"}
AXES = (*DEFAULT, "log")
NO_SHARDS = ("--data.manifest", "no_such_folder")
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


@pytest.mark.parametrize("how", ["one word", "two words"])
def test_an_option_that_would_change_the_last_of_two_views_alone_is_refused(
    how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    key = "--data.views.init_args.saliency.source"
    option = [f"{key}=shuffled"] if how == "one word" else [key, "shuffled"]
    said = refused(capsys, "fit", *stack(view="two_view_focus_small"), *option)
    assert said.count("\n") == 1
    assert f"{key} would change the last of 2 views alone" in said


def test_the_only_view_may_be_changed_by_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    files = stack(objective="gaze_predictor_small", view="one_view_gaze_small")
    said = refused(capsys, "fit", *files, "--data.views.init_args.size", "48", *NO_SHARDS)
    assert "views alone" not in said
    assert "no_such_folder" in said


def test_views_of_a_file_of_ones_own_take_the_place_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/methods.md says it of saliency."""
    text = (CONFIGS / "view/two_view_focus_small.yaml").read_text()
    own = tmp_path / "own.yaml"
    own.write_text(text.replace("source: both", "source: shuffled"))
    config = printed([*stack(view="two_view_focus_small"), "-c", str(own)], capsys)
    read = [view["init_args"]["saliency"]["source"] for view in config["data"]["views"]]
    assert read == ["shuffled", "shuffled"]
