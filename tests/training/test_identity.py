"""Resume refuses another objective, and only that."""

from typing import Any

import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.trainer.states import TrainerFn

from lightning_rad.training.identity import SameObjective

CONFIG: dict[str, Any] = {
    "class_path": "lightning_rad.objectives.simclr.SimCLR",
    "init_args": {"temperature": 0.1, "optimizer": {"init_args": {"lr": 1.0}}, "schedule": None},
}


def resume(
    saved: dict[str, Any],
    now: dict[str, Any],
    fn: TrainerFn = TrainerFn.FITTING,
    *,
    force: bool = False,
) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.state.fn = fn
    checkpoint: dict[str, Any] = {}
    SameObjective(saved).on_save_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]
    SameObjective(now, force=force).on_load_checkpoint(trainer, None, checkpoint)  # type: ignore[arg-type]


def rate(lr: float) -> dict[str, Any]:
    return {"init_args": {"lr": lr}}


def changed(**init_args: Any) -> dict[str, Any]:
    return CONFIG | {"init_args": CONFIG["init_args"] | init_args}


def test_the_same_objective_resumes() -> None:
    resume(CONFIG, CONFIG)


def test_with_a_schedule_another_rate_resumes() -> None:
    schedule = {"class_path": "x", "init_args": {"warmup": 0.1}}
    other = {"class_path": "x", "init_args": {"warmup": 0.2}}
    resume(changed(schedule=schedule), changed(schedule=schedule, optimizer=rate(0.1)))
    resume(changed(schedule=schedule), changed(schedule=other))


def test_a_change_that_the_restored_state_would_undo_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optimizer\.init_args\.lr=1\.0, this run has 0\.1"):
        resume(CONFIG, changed(optimizer=rate(0.1)))
    with pytest.raises(ValueError, match=r"weight_decay=None, this run has 0\.5"):
        resume(CONFIG, changed(optimizer={"init_args": {"lr": 1.0, "weight_decay": 0.5}}))


def test_weights_may_have_moved() -> None:
    def encoder(path: str) -> dict[str, Any]:
        return {"class_path": "E", "init_args": {"name": "resnet18", "init_from": path}}

    resume(changed(encoder=encoder("/old/w.pt")), changed(encoder=encoder("/new/w.pt")))


def test_another_temperature_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"model\.init_args\.temperature=0\.1, this run has 0\.2"):
        resume(CONFIG, changed(temperature=0.2))


def test_another_objective_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"model\.class_path=.*SimCLR, this run has x\.Y"):
        resume(CONFIG, CONFIG | {"class_path": "x.Y"})


def test_validation_may_load_what_fits() -> None:
    resume(CONFIG, changed(temperature=0.2), TrainerFn.VALIDATING)


def test_force_resumes_and_names_all_that_differs(caplog: pytest.LogCaptureFixture) -> None:
    resume(CONFIG, changed(temperature=0.2, optimizer=rate(0.1)), force=True)
    assert caplog.text.count("WARNING") == 2
    assert "model.init_args.temperature=0.1, this run has 0.2" in caplog.text
    assert "model.init_args.optimizer.init_args.lr=1.0, this run has 0.1" in caplog.text
    caplog.clear()
    resume(CONFIG, CONFIG, force=True)
    assert "WARNING" not in caplog.text
