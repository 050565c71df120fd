"""What an objective cannot work with is refused before the first step, or has a defined answer.

Bags of one image and of a thousand are in test_micle.py, queues that wrap in test_moco.py.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler
from pytorch_lightning.strategies import SingleDeviceStrategy
from torch import nn

from lightning_rad.data.views.geometry import Crop
from lightning_rad.data.views.random_view import RandomView
from lightning_rad.modalities.words import train_words
from lightning_rad.nn.feature_queue import FeatureQueue
from lightning_rad.nn.projector import Projector
from lightning_rad.objectives.c2l import Contrast
from tests.command import lightning_rad, refused
from tests.configs.test_stacks import CONFIGS, stack
from tests.nn.texts import SENTENCES
from tests.objectives.fixed import FixedBatches, fit_steps, random_batches
from tests.objectives.small_nets import TOKENIZER
from tests.objectives.test_byol import byol
from tests.objectives.test_c2l import c2l
from tests.objectives.test_micle import micle, simclr
from tests.objectives.test_moco import moco
from tests.objectives.test_moco_v3 import moco_v3
from tests.objectives.test_refers import batch as reports
from tests.objectives.test_refers import refers
from tests.runs import Run, data

Make = Callable[..., Any]
ALL = pytest.mark.parametrize("make", [moco, moco_v3, byol, c2l, micle])
WORDS = ["--model.init_args.reports.tokenizer", TOKENIZER]
TEXT = "--model.init_args.text.encoder"
PRETRAINED = "lightning_rad.nn.text_pretrained.PretrainedText"
WITH_TWIN = pytest.mark.parametrize("make", [moco, moco_v3, byol, c2l])


def refusal(objective: Any, **how: Any) -> str:
    """The one line that refuses a fit; nothing was computed before."""
    called: list[int] = []
    objective.encoder.register_forward_pre_hook(lambda *_: called.append(1))
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - the caller reads the message
        fit_steps(objective, **({"batches": random_batches(1), "unit": "study"} | how))
    assert called == []
    assert "\n" not in str(refused.value)
    return str(refused.value)


@ALL
def test_a_field_that_the_data_does_not_give_is_named_with_the_objective(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective = make()
    for field in sorted(objective.needs):
        monkeypatch.setattr(FixedBatches, "gives", frozenset(objective.needs - {field}))
        said = refusal(make())
        assert said.startswith(f"{type(objective).__name__} needs the batch field(s) ['{field}']")
        assert "the data gives" in said


@ALL
def test_one_view_is_too_few(make: Make) -> None:
    name = type(make()).__name__
    said = refusal(make(), batches=random_batches(1, views=1))
    assert said == f"{name} needs at least 2 views of a unit; data.views has 1"


@WITH_TWIN
def test_a_third_view_is_not_dropped_in_silence(make: Make) -> None:
    name = type(make()).__name__
    said = refusal(make(), batches=random_batches(1, views=3))
    assert said == f"{name} makes use of 2 views of a unit; data.views has 3"


def test_micle_takes_a_third_view() -> None:
    [step] = fit_steps(micle(), random_batches(1, views=3), unit="study")
    assert torch.isfinite(torch.tensor(step.terms["nt_xent"]))


@pytest.mark.parametrize(
    ("how", "said"),
    [
        (
            {"batches": random_batches(1)},
            "REFERS needs at least 3 views of a unit; data.views has 2",
        ),
        (
            {"batches": random_batches(1, views=4)},
            "REFERS makes use of 3 views of a unit; data.views has 4",
        ),
        ({"unit": "image"}, "REFERS: data.unit must be study, it is image"),
        ({"unit": "patient"}, "REFERS: data.unit must be study, it is patient"),
    ],
)
def test_refers_takes_three_views_of_studies(how: dict[str, Any], said: str) -> None:
    assert refusal(refers(), **({"batches": [reports()]} | how)) == said


def test_weights_of_another_tokeniser_are_refused_by_its_digest() -> None:
    objective, saved = refers(), {"objective": "REFERS", "words": {"caption": "0", "text": "0"}}
    digest = objective.reading.digests["caption"]
    said = rf"trained with tokeniser 0 \(caption\), this run has {digest}: set model\.init_args"
    with pytest.raises(ValueError, match=said):
        objective.on_load_checkpoint(saved)


def test_views_that_are_mirrored_one_by_one_are_refused_where_words_of_side_are_read(
    tiny_shards: Path, tmp_path: Path
) -> None:
    module = data(Run(tiny_shards, tmp_path, 1, objective="refers", unit="study"))
    module.views[1] = RandomView(16, crop=Crop(flip=0.5))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    with pytest.raises(ValueError, match=r"^data\.views\[1\]\.crop\.flip is 0\.5: where reports"):
        trainer.fit(refers().float(), datamodule=module)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "tokenizer.json: no such tokenizer"),
        (["--model.init_args.reports.limit", "3"], "model.init_args.reports.limit 3"),
        (
            ["--model.init_args.contrast.image_share", "2"],
            "contrast.image_share must lie in [0, 1]",
        ),
        (["--model.init_args.contrast.temperature", "0"], "at least 0.01"),
    ],
)
def test_refers_says_in_one_line_what_of_its_reports_it_cannot_use(
    arguments: list[str], said: str, tiny_shards: Path, tmp_path: Path, capsys: Any
) -> None:
    assert said in refused(
        capsys,
        *("fit", *stack(objective="refers_small", view="three_view_reports_small")),
        *("--run", str(tmp_path), "--data.manifest", str(tiny_shards)),
        *("--model.init_args.reports.tokenizer", str(tmp_path / "tokenizer.json"), *arguments),
    )


@WITH_TWIN
@pytest.mark.parametrize("momentum", [-0.001, 1.001, float("nan")])
def test_a_twin_momentum_outside_0_to_1_is_refused_by_name(make: Make, momentum: float) -> None:
    with pytest.raises(ValueError, match=r"^momentum: .* of the twin is not in \[0, 1\]$"):
        make(momentum=momentum)


@WITH_TWIN
@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_the_ends_of_its_range_are_allowed(make: Make, momentum: float) -> None:
    [step] = fit_steps(make(momentum=momentum), random_batches(1))
    start = make().state_dict()["twin.net.0.layers.0.weight"]
    twin = step.state["twin.net.0.layers.0.weight"]
    if momentum == 1:
        assert torch.equal(twin, start)
    elif make is not moco_v3:  # whose momentum is 1 after the last step
        torch.testing.assert_close(twin, step.state["encoder.layers.0.weight"])


@pytest.mark.parametrize("make", [moco_v3, byol])
def test_a_predictor_of_another_width_than_its_target_is_refused(make: Make) -> None:
    said = r"^predictor\.out_features is 7, projector\.out_features 8"
    with pytest.raises(ValueError, match=said):
        make(predictor=lambda width: Projector(width, out_features=7))


@pytest.mark.parametrize("temperature", [0.0, -1.0, 0.0099, float("nan")])
@pytest.mark.parametrize(
    "make",
    [
        lambda t: moco(temperature=t),
        lambda t: moco_v3(temperature=t),
        lambda t: micle(temperature=t),
        lambda t: Contrast(temperature=t),
    ],
)
def test_a_temperature_too_low_is_refused(make: Make, temperature: float) -> None:
    with pytest.raises(
        ValueError, match=rf"^temperature must be at least 0\.01, got {temperature}"
    ):
        make(temperature)


@pytest.mark.parametrize(("make", "keys"), [(moco, 8), (c2l, 24)])
def test_a_queue_shorter_than_a_step_is_refused_and_one_just_as_long_is_not(
    make: Make, keys: int
) -> None:
    short = make(queue=lambda width: FeatureQueue(width, length=keys - 1))
    assert refusal(short).startswith(
        f"queue.length: {keys - 1} is less than the {keys} keys of one"
    )
    exact = make(queue=lambda width: FeatureQueue(width, length=keys))
    first, second = fit_steps(exact, random_batches(2))
    moved = first.under("queue")["keys_KD"] != second.under("queue")["keys_KD"]
    assert moved.any(1).all()


class Aborts(Callback):
    """Ends a fit between a loss and its gradient, when the keys are staged already."""

    def on_before_backward(self, *args: Any) -> None:
        raise RuntimeError("out of memory")


@pytest.mark.parametrize(("make", "keys"), [(moco, 8), (c2l, 24)])
def test_keys_of_a_fit_that_broke_off_do_not_enter_the_next(make: Make, keys: int) -> None:
    given, objective = random_batches(2), make()
    with pytest.raises(RuntimeError, match="out of memory"):
        fit_steps(objective, random_batches(1, seed=2), callbacks=[Aborts()])
    assert sum(map(len, objective.queue._staged)) == keys
    for after, fresh in zip(fit_steps(objective, given), fit_steps(make(), given), strict=True):
        assert after.terms == fresh.terms
        for name, value in fresh.state.items():
            assert torch.equal(after.state[name], value), name


@WITH_TWIN
@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_a_twin_in_16_bits_is_refused(make: Make, precision: str) -> None:
    """It would stay where it is: 16 bits do not hold w + 0.001 (student - w)."""
    name = type(make()).__name__
    assert refusal(make(), precision=precision) == (
        f"{name}: trainer.precision {precision} would leave its twin where it is; "
        f"set {precision[:-4]}mixed"
    )


@pytest.mark.parametrize("make", [lambda: micle("batch"), simclr])
@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_without_a_twin_16_bits_are_a_choice(make: Make, precision: str) -> None:
    objective = make()
    batches = random_batches(2)
    fit_steps(objective, batches, unit="study", precision=precision, callbacks=[])
    assert all(parameter.isfinite().all() for parameter in objective.parameters())
    assert not torch.equal(objective.encoder.layers[5].weight, make().encoder.layers[5].weight)


@pytest.mark.filterwarnings("ignore:When using `Trainer.accumulate_grad_batches")
@pytest.mark.parametrize(("epoch", "steps"), [(0, 0), (1, 2)])
def test_c2l_refuses_an_accumulation_that_a_callback_sets_before_it_steps(
    epoch: int, steps: int
) -> None:
    """`setup` comes too early to see it."""
    objective = c2l()
    start = {name: value.clone() for name, value in objective.state_dict().items()}
    scheduler = GradientAccumulationScheduler(scheduling={epoch: 2})
    said = r"^C2L takes one batch a step: trainer\.accumulate_grad_batches is 2, set it to 1$"
    with pytest.raises(ValueError, match=said):
        fit_steps(objective, random_batches(2), max_steps=4, callbacks=[scheduler])
    if not steps:
        assert all(torch.equal(objective.state_dict()[name], start[name]) for name in start)
    assert int(objective.queue.pointer) == steps * 24 % objective.queue.length


@pytest.mark.parametrize("make", [moco_v3, byol])
def test_a_run_without_end_is_refused_where_the_twin_needs_one(make: Make) -> None:
    said = refusal(make(), max_steps=-1, max_epochs=-1)
    assert said.endswith("needs an end: set trainer.max_steps or trainer.max_epochs")


def test_one_of_the_two_ends_is_enough() -> None:
    for make in (moco_v3, byol):
        assert len(fit_steps(make(), random_batches(2), max_steps=-1, max_epochs=1)) == 2


@pytest.mark.parametrize("make", [moco, c2l])
@pytest.mark.parametrize("synchronised", [True, False])
def test_synchronised_batch_norms_in_place_of_shuffle_bn_are_told(
    make: Make,
    synchronised: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Made where Lightning makes them, in the strategy's setup; DDP has them on GPUs only."""
    setup = SingleDeviceStrategy.setup

    def converting(strategy: SingleDeviceStrategy, trainer: Trainer) -> None:
        if synchronised:
            nn.SyncBatchNorm.convert_sync_batchnorm(trainer.lightning_module)
        setup(strategy, trainer)

    monkeypatch.setattr(SingleDeviceStrategy, "setup", converting)
    fit_steps(make("batch"), random_batches(2))
    told = [r.getMessage() for r in caplog.records if r.name.startswith("lightning_rad")]
    assert [said.partition(":")[0] for said in told] == (
        ["trainer.sync_batchnorm is on"] if synchronised else []
    )


@ALL
def test_a_world_size_that_does_not_divide_the_batch_is_refused(
    make: Make, tiny_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the data module, whatever the objective; 3 ranks share out 4 groups."""
    module = data(Run(tiny_shards, tmp_path, 1))
    module.unit = "study"
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    monkeypatch.setattr(Trainer, "world_size", 3)
    with pytest.raises(ValueError, match=r"3 ranks .*groups"):
        trainer.fit(make(), datamodule=module)


def test_a_batch_that_groups_do_not_divide_is_refused(tiny_shards: Path, tmp_path: Path) -> None:
    module = data(Run(tiny_shards, tmp_path, 1, global_batch=10))
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    with pytest.raises(ValueError, match=r"data\.global_batch=10"):
        trainer.fit(moco(), datamodule=module)


def test_a_third_recipe_in_the_data_module_counts_as_a_view(
    tiny_shards: Path, tmp_path: Path
) -> None:
    module = data(Run(tiny_shards, tmp_path, 1))
    module.views = [*module.views, RandomView(16, crop=Crop())]
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_steps=1)
    with pytest.raises(
        ValueError, match=r"^BYOL makes use of 2 views of a unit; data\.views has 3"
    ):
        trainer.fit(byol(), datamodule=module)


@pytest.mark.parametrize(
    ("objective", "arguments", "said"),
    [
        ("moco_v2_small", ["--model.init_args.momentum", "1.5"], "momentum: 1.5 of the twin"),
        ("byol_small", ["--model.init_args.momentum", "-1"], "momentum: -1"),
        (
            "byol_small",
            ["--model.init_args.predictor.init_args.out_features", "7"],
            "predictor.out_features is 7, projector.out_features 128",
        ),
        ("c2l_small", ["--model.init_args.contrast.temperature", "0"], "at least 0.01"),
        ("c2l_small", ["--trainer.accumulate_grad_batches", "2"], "accumulate_grad_batches is 2"),
        ("c2l_small", ["--model.init_args.partners", "3"], "partners: 3 does not divide the 8"),
        (
            "moco_v2_small",
            ["--model.init_args.queue.init_args.length", "7"],
            "queue.length: 7 is less than the 8 keys",
        ),
        ("micle_small", ["--data.unit", "image"], "data.unit must be study or patient"),
        (
            "micle_small",
            ["--data.shuffle.images", "independent"],
            "data.shuffle.images must be distinct, it is independent",
        ),
        ("moco_v2_small", ["--trainer.precision", "bf16-true"], "set bf16-mixed"),
        (
            "image_report_siglip_small",
            [*WORDS, "--model.init_args.contrast.exchange", "ring"],
            "contrast.exchange is ring",
        ),
        (
            "image_report_clip_small",
            [*WORDS, "--data.unit", "patient"],
            "data.unit must be study or image, it is patient",
        ),
        (
            "image_report_clip_small",
            [*WORDS, "-c", str(CONFIGS / "view/two_view_mirrored_112.yaml")],
            "data.views[0].crop.flip is 0.5",
        ),
        (
            "image_report_clip_small",
            ["--model.init_args.reports.tokenizer", "nowhere.json"],
            "nowhere.json",
        ),
        (
            "image_report_clip_small",
            [*WORDS, "--model.init_args.text.projector.init_args.out_features", "7"],
            "text.projector.out_features is 7, projector.out_features 128",
        ),
        (
            "image_report_clip_small",
            [*WORDS, TEXT, PRETRAINED, f"{TEXT}.init_args.folder", "nowhere"],
            "text.folder: no folder nowhere",
        ),
    ],
)
def test_from_the_command_line_it_is_one_line(
    objective: str,
    arguments: list[str],
    said: str,
    tiny_shards: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said in refused(
        capsys,
        *("fit", *stack(objective=objective), "--run", str(tmp_path / "run")),
        *("--data.manifest", str(tiny_shards), "--data.global_batch", "8"),
        *("--model.init_args.encoder.init_args.name", "test_resnet"),
        *("--trainer.max_steps", "1", *arguments),
    )


def test_a_transformer_built_for_another_size_than_the_views_is_refused(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(
        capsys,
        *("fit", *stack(objective="moco_v3_vit"), "--run", str(tmp_path)),
        *("--data.manifest", str(tiny_shards), "--data.global_batch", "16"),
        *("--model.init_args.encoder.init_args.image_size", "96"),
    )
    assert "built for images of 96 pixels, data.views have 64: set model.init_args.encoder" in said


def test_a_resume_with_another_tokeniser_is_one_line(
    tiny_shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.json"
    other.write_text(train_words(SENTENCES, vocabulary=60))
    arguments = [
        *("fit", *stack(objective="image_report_clip_small", view="one_view_reports_small")),
        *("--run", str(tmp_path / "run"), "--data.manifest", str(tiny_shards)),
        *("--data.global_batch", "8", "--trainer.limit_val_batches", "0"),
        *("--trainer.enable_model_summary", "false", "--trainer.enable_progress_bar", "false"),
        *("--model.init_args.encoder.init_args.name", "test_resnet"),
    ]
    lightning_rad(*arguments, *WORDS, "--trainer.max_steps", "1")
    capsys.readouterr()
    resumed = [*WORDS[:1], str(other), "--trainer.max_steps", "2", "--ckpt_path", "last"]
    said = refused(capsys, *arguments, *resumed)
    assert "the checkpoint was trained with tokeniser" in said
