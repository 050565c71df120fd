"""`lightning-rad fit|validate|test|predict`: runs from stacked YAML."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from lightning_rad.data.datamodule import RadiographData
from lightning_rad.evaluation.probe import FrozenProbe
from lightning_rad.objectives.base import Objective
from lightning_rad.training.checkpoint import LastCheckpoint
from lightning_rad.training.console import told
from lightning_rad.training.identity import SameObjective
from lightning_rad.training.interrupt import StopOnInterrupt
from lightning_rad.training.observers.throughput import Throughput

log = logging.getLogger(__name__)

_RUN = ("fit", "validate", "test", "predict")
_START = "model.init_args.encoder.init_args.init_from"


class SavedConfig(SaveConfigCallback):
    """The config as parsed, but for the checkpoint a run started from: not the next one's.

    What `--init_from` gave stays, as the encoder's argument.
    """

    def __init__(self, parser: LightningArgumentParser, config: Namespace, **how: Any) -> None:
        config = config.clone()
        config.ckpt_path = config.init_from = None
        super().__init__(parser, config, **how)


class RunCLI(LightningCLI):
    """Runs from stacked YAML: base, objective, view, data, scale; everything lands in `--run`."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """What every run has beside Lightning's own: a folder, checkpoints, a probe, a clock."""
        parser.add_argument("--run", type=str, default="runs/default", help="folder of the run")
        start = "file that the encoder starts from: weights, or a checkpoint of any objective"
        parser.add_argument("--init_from", type=str | None, default=None, help=start)
        parts = "units of a rank embedded at a time, the loss being of all; null: all at once"
        parser.add_argument("--embed_at_once", type=int | None, default=None, help=parts)
        parser.add_lightning_class_args(LastCheckpoint, "checkpoint")
        parser.add_lightning_class_args(FrozenProbe, "probe")
        parser.add_lightning_class_args(Throughput, "throughput")
        parser.link_arguments("run", "trainer.default_root_dir")
        parser.link_arguments("run", "checkpoint.dirpath", compute_fn=_checkpoint_folder)

    def before_instantiate_classes(self) -> None:
        """Loggers and the saved config go to the run's folder; one config file a subcommand."""
        config = self.config[self.subcommand]
        self._check_checkpoint(config)
        self._start = self._take_start(config)
        self._begin_anew(config)
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

    def _check_checkpoint(self, config: Namespace) -> None:
        """Refuse to write over a finished run, and to measure a checkpoint that is not there."""
        last = _last_checkpoint(config.run)
        if self.subcommand == "fit":
            if last.exists() and config.ckpt_path is None and not config.trainer.fast_dev_run:
                raise ValueError(
                    f"{config.run} holds a run already: go on with --ckpt_path last, or choose "
                    "another --run"
                )
        elif config.ckpt_path == "last" and not last.exists():
            raise ValueError(f"--ckpt_path last: there is no {last}")
        elif self.subcommand == "validate" and config.trainer.limit_val_batches == 0:
            raise ValueError("trainer.limit_val_batches is 0: there is nothing to validate")

    def _begin_anew(self, config: Namespace) -> None:
        """`--ckpt_path last` in a folder without one begins: a requeued job needs one command."""
        last = _last_checkpoint(config.run)
        if self.subcommand == "fit" and config.ckpt_path == "last" and not last.exists():
            log.info("--ckpt_path last: no checkpoint in %s yet, beginning anew", last.parent)
            config.ckpt_path = None

    def _take_start(self, config: Namespace) -> str | None:
        """The file that the encoder starts from; not opened where a checkpoint replaces it all."""
        start: str | None = config.get(_START)
        if config.init_from is not None:
            if config.ckpt_path is not None:
                raise ValueError("--init_from starts a run and --ckpt_path goes on: give only one")
            if _START not in config:
                raise ValueError("--init_from: the config's encoder takes no init_from")
            if start not in (None, config.init_from):
                raise ValueError(f"--init_from: the config has {_START}={start} already")
            start = config[_START] = config.init_from
        if start is not None and config.ckpt_path is not None:
            last = _last_checkpoint(config.run)
            if (last if config.ckpt_path == "last" else Path(config.ckpt_path)).exists():
                config[_START] = None
        return start

    def instantiate_trainer(self, **kwargs: Any) -> Any:
        """Lightning's trainer, which also refuses to resume another objective."""
        model = self._get(self.config, "model")
        if self._start is not None:  # the saved config tells where the first weights came from
            self.config[self.subcommand][_START] = self._start
        plain = model.as_dict() if isinstance(model, Namespace) else {}
        self.interrupt = StopOnInterrupt()
        callbacks = [*kwargs.pop("callbacks", []), SameObjective(plain), self.interrupt]
        return super().instantiate_trainer(callbacks=callbacks, **kwargs)

    def before_fit(self) -> None:
        """Tell the objective what is no part of it: in how many parts to embed."""
        self.model.embed_at_once = self.config["fit"].embed_at_once

    def after_fit(self) -> None:
        """Say how to go on after a Ctrl-C."""
        if self.interrupt.interrupted:
            print(  # noqa: T201
                f"stopped at step {self.trainer.global_step}; the same command with "
                "--ckpt_path last goes on"
            )
            sys.exit(130)


def _checkpoint_folder(run: str) -> str:
    return os.path.join(run, "checkpoints")


def _last_checkpoint(run: str) -> Path:
    return Path(_checkpoint_folder(run)) / "last.ckpt"


def run() -> None:
    """Parse the command line of this process and run what it says."""
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
