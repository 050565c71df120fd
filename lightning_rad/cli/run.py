"""`lightning-rad fit|validate|test|predict`: runs from stacked YAML."""

from __future__ import annotations

import logging
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.utilities import rank_zero_only
from torch import nn

from lightning_rad.checkpoints import checkpoints
from lightning_rad.cli.saved_config import SavedConfig
from lightning_rad.data.datamodule import RadiographData
from lightning_rad.evaluation.findings import FindingProbe
from lightning_rad.evaluation.gaze import GazeProbe
from lightning_rad.evaluation.probe import FrozenProbe
from lightning_rad.evaluation.reports import ReportProbe
from lightning_rad.objectives.base import Objective
from lightning_rad.objectives.loss_guard import Guard
from lightning_rad.training import launch
from lightning_rad.training.agreement import Agreement
from lightning_rad.training.checkpoint import Checkpoints
from lightning_rad.training.console import Bar, told
from lightning_rad.training.death import LastWords
from lightning_rad.training.identity import SameObjective
from lightning_rad.training.layer_sync import keep_activations
from lightning_rad.training.layout import check_folder, check_layout
from lightning_rad.training.observers.focus import FocusRate
from lightning_rad.training.observers.heartbeat import Heartbeat
from lightning_rad.training.observers.throughput import Throughput
from lightning_rad.training.shared_memory import warn_where_small
from lightning_rad.training.speed import Speed
from lightning_rad.training.stop import Stop
from lightning_rad.training.strategies import Sharded
from lightning_rad.training.watchdog import Watchdog

log = logging.getLogger(__name__)

_RUN = ("fit", "validate", "test", "predict")
_START = "model.init_args.encoder.init_args.init_from"


class RunCLI(LightningCLI):
    """Runs from stacked YAML: base, objective, view, data, scale; everything lands in `--run`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What every run has beside Lightning's own: a folder, checkpoints, a probe, a clock."""
        parser.add_argument("--run", type=str, default="runs/default", help="folder of the run")
        start = "what the encoder starts from: a file of weights, or a checkpoint of any objective"
        parser.add_argument("--init_from", type=str | None, default=None, help=start)
        parts = "units of a rank embedded at a time, the loss being of all; null: all at once"
        parser.add_argument("--embed_at_once", type=int | None, default=None, help=parts)
        meta = "ranks but the first build the objective without memory; for the strategy Sharded"
        parser.add_argument("--meta_init", type=bool, default=False, help=meta)
        parser.add_instantiator(self._built, nn.Module)
        parser.add_class_arguments(Guard, "guard")
        force = "go on from a checkpoint of other data or another objective, with a warning"
        parser.add_argument("--force_resume", type=bool, default=False, help=force)
        parser.add_lightning_class_args(Checkpoints, "checkpoint")
        parser.add_lightning_class_args(Agreement, "agreement")
        parser.add_lightning_class_args(Stop, "stop")
        parser.add_lightning_class_args(Watchdog, "watchdog")
        parser.add_lightning_class_args(FrozenProbe, "probe")
        parser.add_lightning_class_args(ReportProbe, "report_probe")
        parser.add_lightning_class_args(GazeProbe, "gaze_probe")
        parser.add_lightning_class_args(FindingProbe, "finding_probe")
        parser.add_lightning_class_args(Throughput, "throughput")
        parser.add_lightning_class_args(FocusRate, "focus")
        parser.add_lightning_class_args(Speed, "speed")
        parser.link_arguments("run", "trainer.default_root_dir")
        parser.link_arguments("run", "checkpoint.dirpath", compute_fn=_checkpoint_folder)

    def before_instantiate_classes(self) -> None:
        """Loggers and the saved config go to the run's folder; one config file a subcommand."""
        config = self.config[self.subcommand]
        trainer = config.trainer
        check_layout(trainer.devices, trainer.num_nodes, trainer.accelerator)
        check_folder(config.run)
        _check_views(config.data.views, sys.argv)
        if isinstance(trainer.strategy, str) and "." in trainer.strategy:
            # a class: Lightning takes text for the name of one of its own, in lower case
            trainer.strategy = Namespace({"class_path": trainer.strategy})  # type: ignore[no-untyped-call]
        self._check_checkpoint(config)
        self._check_meta_init(config)
        self._find_last(config)
        self._start = self._take_start(config)
        if "verbose" in config:  # the probe prints its own table
            config.verbose = False
        self.save_config_kwargs = {
            "overwrite": True,
            "config_filename": f"{self.subcommand}.yaml",
        }
        if self.subcommand != "fit":  # only training has a history; the probe writes its own files
            config.trainer.logger = False
            return
        loggers = config.trainer.logger
        for logger in loggers if isinstance(loggers, list) else [loggers]:
            if isinstance(logger, Namespace) and logger.class_path.startswith("lightning_rad."):
                logger.init_args.save_dir = config.run

    def _parse_ckpt_path(self) -> None:
        """Lightning would let a checkpoint's hyperparameters override the config; ours rules."""

    def _built(self, kind: type[nn.Module], *args: Any, **given: Any) -> nn.Module:
        """A module of the config, on the meta device where rank 0's values will replace its own."""
        without = self.config[self.subcommand].meta_init and getattr(rank_zero_only, "rank", 0) > 0
        with torch.device("meta") if without else nullcontext():
            return kind(*args, **given)

    def _check_meta_init(self, config: Namespace) -> None:
        strategy = config.trainer.strategy
        kind = strategy.class_path if isinstance(strategy, Namespace) else strategy
        if config.meta_init and kind != f"{Sharded.__module__}.{Sharded.__name__}":
            raise ValueError(f"meta_init: true needs trainer.strategy Sharded, got {kind}")

    def _check_checkpoint(self, config: Namespace) -> None:
        """Refuse to write over a run, two starts, and to measure a checkpoint that is not there."""
        folder = _checkpoint_folder(config.run)
        there = bool(checkpoints(folder))
        if None not in (config.init_from, config.ckpt_path):
            raise ValueError("--init_from starts a run and --ckpt_path goes on: give only one")
        if self.subcommand == "fit":
            if there and config.ckpt_path is None and not config.trainer.fast_dev_run:
                raise ValueError(
                    f"{config.run} holds a run already: go on with --ckpt_path last, or choose "
                    "another --run"
                )
        elif config.ckpt_path == "last" and not there:
            raise ValueError(f"--ckpt_path last: there is no checkpoint in {folder}")
        elif self.subcommand == "validate" and config.trainer.limit_val_batches == 0:
            raise ValueError("trainer.limit_val_batches is 0: there is nothing to validate")

    def _find_last(self, config: Namespace) -> None:
        """`--ckpt_path last` is the run's own folder; without a checkpoint in it the run begins.

        So a requeued job needs one command. Which of them is the newest whole one is found later,
        by rank 0 alone.
        """
        if config.ckpt_path != "last":
            return
        folder = config.ckpt_path = _checkpoint_folder(config.run)
        if not checkpoints(folder):
            log.info("--ckpt_path last: no checkpoint in %s yet, beginning anew", folder)
            config.ckpt_path = None

    def _take_start(self, config: Namespace) -> str | None:
        """What the encoder starts from; not opened where a checkpoint replaces it all."""
        start: str | None = config.get(_START)
        if config.init_from is not None:
            if _START not in config:
                raise ValueError("--init_from: the config's encoder takes no init_from")
            if start not in (None, config.init_from):
                raise ValueError(f"--init_from: the config has {_START}={start} already")
            start = config[_START] = config.init_from
        if start is not None and config.ckpt_path is not None and Path(config.ckpt_path).exists():
            config[_START] = None
        return start

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Lightning's trainer, which also refuses to resume another objective."""
        model = self._get(self.config, "model")
        if self._start is not None:  # the saved config tells where the first weights came from
            self.config[self.subcommand][_START] = self._start
        plain = model.as_dict() if isinstance(model, Namespace) else {}
        force = self.config[self.subcommand].force_resume
        asked = self._get(self.config_init, "trainer")
        given = asked.get("callbacks") or []  # the user's
        given = given if isinstance(given, list) else [given]
        callbacks = [*given, SameObjective(plain, force=force), LastWords()]
        callbacks += [*Heartbeat.asked_for(), *Bar.instead(asked.enable_progress_bar, given)]
        launch.mark()
        trainer = super().instantiate_trainer(callbacks=callbacks, **kwargs)
        warn_where_small(trainer)
        keep_activations(trainer.strategy)
        return trainer

    def before_fit(self) -> None:
        """Tell the objective what is no part of it: in how many parts to embed, bad losses."""
        self._get(self.config_init, "stop").watch()
        self.model.embed_at_once = self.config["fit"].embed_at_once
        self.datamodule.force_resume = self.config["fit"].force_resume
        self.model.guard = self.config_init["fit"].guard

    def after_fit(self) -> None:
        """Where a signal stopped the fit, leave with the status that says so."""
        self._get(self.config_init, "stop").leave(self.trainer)


def _check_views(views: list[Any], arguments: list[str]) -> None:
    """Refuse an option that would change the last view alone, where there are several."""
    named = [word.partition("=")[0] for word in arguments if word.startswith("--data.views")]
    of_one = [name for name in named if name.startswith("--data.views.")]
    if of_one and len(named) == len(of_one) and len(views) > 1:
        raise ValueError(
            f"{of_one[0]} would change the last of {len(views)} views alone: give views in a file "
            "of your own, as those of configs/view/, by -c"
        )


def _checkpoint_folder(run: str) -> str:
    return os.path.join(run, "checkpoints")


def run() -> None:
    """Parse the command line of this process and run what it says."""
    try:
        with told():
            RunCLI(
                Objective,
                RadiographData,
                save_config_callback=SavedConfig,
                subclass_mode_model=True,
                seed_everything_default=0,
                auto_configure_optimizers=False,
                load_from_checkpoint_support=False,
                parser_kwargs={
                    # the options of a run fill pages: `--help` lists them, an error names its own
                    **{
                        name: {"usage": f"lightning-rad {name} -c FILE ... [--KEY VALUE]"}
                        for name in _RUN
                    },
                    "parser_mode": "omegaconf",
                    "description": "Pretrain and measure radiograph encoders; "
                    "`lightning-rad shards --help` makes and checks shards.",
                },
            )
    finally:
        launch.unmark()
