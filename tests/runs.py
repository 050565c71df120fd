"""Real training runs in processes of their own, which a test may kill."""

from __future__ import annotations

import logging
import os
import signal
import socket
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_rad.checkpoints import checkpoints, newest, read
from lightning_rad.data.units import Unit

_context = get_context("forkserver")
_context.set_forkserver_preload(
    [
        "torch",
        "torch.distributed",
        "lightning_rad.objectives.simclr",
        "lightning_rad.data.datamodule",
        "lightning_rad.training.checkpoint_io",
        "lightning_rad.training.stop",
        "lightning_rad.training.strategies",
    ]
)


@dataclass(frozen=True)
class Run:
    """One training run: where its shards and its folder are, and how it is laid out."""

    shards: Path
    folder: Path
    steps: int
    ranks: int = 1
    threads: int = 1
    global_batch: int = 8
    save_every: int = 2
    objective: str = "simclr"
    unit: Unit = "image"
    exact: bool = False  # float64 and no dropout: ranks differ by the order of sums alone
    trainer: dict[str, Any] = field(default_factory=dict)
    in_background: bool = False  # a kill right after a save would else find it unwritten
    callbacks: Callable[[], list[Any]] | None = None  # made in each process; what it says is kept

    @property
    def said(self) -> str:
        """What all ranks wrote to standard output and error, where there are callbacks."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("said-*.txt")))

    @property
    def log(self) -> dict[int, list[tuple[int, ...]]]:
        """What training_step was given at each step, ranks put together.

        A step that was taken again after a kill counts as it was taken last.
        """
        by_rank = [dict(_read(self.folder / f"rows-{rank}.txt")) for rank in range(self.ranks)]
        whole = sorted(set.intersection(*(set(steps) for steps in by_rank)))
        return {step: [row for steps in by_rank for row in steps[step]] for step in whole}

    @property
    def checkpoint(self) -> dict[str, Any]:
        """The newest one, as a stranger would read it."""
        path = newest(self.folder / "checkpoints")
        assert path is not None
        return read(path)


def _read(path: Path) -> list[tuple[int, list[tuple[int, ...]]]]:
    text = path.read_text() if path.exists() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()  # a kill may have torn the last one
    return [(int(step), eval(rows)) for step, rows in (line.split(" ", 1) for line in lines)]


def train(run: Run, timeout: float = 120) -> None:
    """Run to the end, resuming from the last checkpoint if there is one."""
    processes = start(run)
    deadline = time.monotonic() + timeout
    for process in processes:
        process.join(max(0.1, deadline - time.monotonic()))
    codes = [process.exitcode for process in processes]
    end(processes)
    assert codes == [0] * run.ranks, f"exit codes {codes}; see {run.folder}/error-*.txt:\n" + (
        "\n".join(p.read_text() for p in run.folder.glob("error-*.txt"))
    )


def train_and_kill(run: Run, after_step: int, timeout: float = 120) -> None:
    """Start a run and SIGKILL all its processes as soon as one has begun step `after_step`."""
    processes = start(run)
    deadline = time.monotonic() + timeout
    try:
        while not any(begun(run, rank) >= after_step for rank in range(run.ranks)):
            assert all(process.is_alive() for process in processes), "ended before it was killed"
            assert time.monotonic() < deadline, "did not reach the step"
            time.sleep(0.01)
    finally:
        end(processes)


@contextmanager
def started(run: Run) -> Iterator[list[BaseProcess]]:
    """The processes of a run that a test does something to; killed at the end."""
    processes = start(run)
    try:
        yield processes
    finally:
        end(processes)


def begun(run: Run, rank: int) -> int:
    steps = _read(run.folder / f"rows-{rank}.txt")
    return steps[-1][0] if steps else -1


def start(run: Run) -> list[BaseProcess]:
    run.folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [
        _context.Process(target=_guarded, args=(_train_rank, run, rank, port), daemon=True)
        for rank in range(run.ranks)
    ]
    for process in processes:
        process.start()
    return list(processes)


def end(processes: list[BaseProcess]) -> None:
    for process in processes:
        if process.is_alive() and process.pid:
            os.kill(process.pid, signal.SIGKILL)
    for process in processes:
        process.join()


def _guarded(function: Callable[..., None], run: Run, rank: int, port: int) -> None:
    if run.callbacks is not None:
        with (run.folder / f"said-{rank}.txt").open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    try:
        function(run, rank, port)
    except BaseException:
        import traceback

        (run.folder / f"error-{rank}.txt").write_text(traceback.format_exc())
        raise


def _train_rank(run: Run, rank: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(run.ranks),
        "LOCAL_WORLD_SIZE": str(run.ranks),
        "TORCHELASTIC_RUN_ID": "tests",
        "GLOO_SOCKET_IFNAME": "lo",
    }
    import warnings

    from pytorch_lightning import Trainer, seed_everything

    from lightning_rad.training.agreement import Agreement
    from lightning_rad.training.checkpoint import Checkpoints
    from lightning_rad.training.checkpoint_io import FolderCheckpointIO
    from lightning_rad.training.stop import Stop

    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    seed_everything(0)
    stop = Stop()
    trainer = Trainer(
        **{
            "accelerator": "cpu",
            "devices": run.ranks,
            "strategy": "ddp" if run.ranks > 1 else "auto",
            "max_steps": run.steps,
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "limit_val_batches": 0,
            "use_distributed_sampler": False,
            "plugins": [FolderCheckpointIO()],
            "default_root_dir": str(run.folder),
            "callbacks": [
                Agreement(),
                stop,
                *(run.callbacks() if run.callbacks else []),
                Checkpoints(
                    str(run.folder / "checkpoints"),
                    every_n_train_steps=run.save_every,
                    in_background=run.in_background,
                ),
            ],
        }
        | run.trainer
    )
    folder = run.folder / "checkpoints"
    trainer.fit(
        _objective(run, rank),
        datamodule=data(run),
        ckpt_path=folder if checkpoints(folder) else None,
        weights_only=False,
    )
    stop.leave(trainer)


def data(run: Run) -> Any:
    """The data module of a run, small enough for tests."""
    from lightning_rad.data.datamodule import RadiographData
    from lightning_rad.data.settings import Evaluation, Loading, Shuffle
    from lightning_rad.data.views.geometry import Crop
    from lightning_rad.data.views.noise import Noise
    from lightning_rad.data.views.random_view import RandomView
    from lightning_rad.data.views.whole_image import WholeImage

    views = [RandomView(16, crop=Crop()), RandomView(16, crop=Crop(), noise=Noise())]
    order = Shuffle(groups=4, window=16, seed=3)
    if run.objective == "knowledge_contrast":
        views = views[:1]
    if run.objective == "refers":
        views, order = [*views, views[0]], replace(order, images="independent", flip=0.5)
    return RadiographData(
        str(run.shards),
        views=views,
        evaluation=Evaluation(WholeImage(16), batch=8),
        global_batch=run.global_batch,
        unit=run.unit,
        shuffle=order,
        loading=Loading(threads=run.threads, ahead=2),
    )


def _made(name: str) -> Any:
    from lightning_rad.modalities.reading import ReadingSettings
    from lightning_rad.nn.feature_queue import FeatureQueue
    from lightning_rad.nn.projector import Projector
    from lightning_rad.nn.text_transformer import TextTransformer
    from lightning_rad.objectives.byol import BYOL
    from lightning_rad.objectives.c2l import C2L, Contrast
    from lightning_rad.objectives.gaze_predictor import GazePredictor
    from lightning_rad.objectives.image_report import ImageReport, TextSide
    from lightning_rad.objectives.knowledge_contrast import KnowledgeContrast
    from lightning_rad.objectives.micle import MICLe
    from lightning_rad.objectives.moco import MoCo
    from lightning_rad.objectives.moco_v3 import MoCoV3
    from lightning_rad.objectives.refers import REFERS
    from lightning_rad.objectives.simclr import SimCLR
    from lightning_rad.optim.schedules import WarmupCosine
    from tests.objectives.small_nets import TOKENIZER

    def head(width: int) -> Projector:
        return Projector(width, hidden=16, out_features=8, norm="layer")

    def queue(width: int) -> FeatureQueue:
        return FeatureQueue(width, length=45)

    def text(words: Any) -> TextTransformer:
        return TextTransformer(words, width=16, layers=1, heads=2)

    reports = ReadingSettings(TOKENIZER, limit=24)
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "simclr": (SimCLR, {"temperature": 0.2}),
        "moco": (MoCo, {"queue": queue}),
        "moco_v3": (MoCoV3, {"predictor": head}),
        "byol": (BYOL, {"predictor": head}),
        "c2l": (C2L, {"queue": queue, "partners": 4, "contrast": Contrast(nce_images=80)}),
        "micle": (MICLe, {}),
        "image_report": (ImageReport, {"reports": reports, "text": TextSide(text, head)}),
    }
    kind, parts = kinds.get(name, (None, {}))
    given: dict[str, Any] = {
        "encoder": TinyEncoder(),
        "projector": head,
        "optimizer": lambda groups: torch.optim.AdamW(groups, lr=1e-3),
        "schedule": lambda optimizer, steps: WarmupCosine(optimizer, steps, warmup=0.1),
    }
    if name == "refers":
        kind, given = REFERS, _writes(given["schedule"]) | {"reports": reports, "text": text}
    if name == "knowledge_contrast":
        kind, given = KnowledgeContrast, given | _sees(head)
    if name == "gaze_predictor":
        del given["projector"]
        kind, given = GazePredictor, given | _looks()
    return kind(**given, **parts)


def _sees(head: Any) -> dict[str, Any]:
    """What the knowledge contrast has beside a head, over a map of 2 x 2 places."""
    from functools import partial

    from lightning_rad.modalities.evidence import FindingReading
    from lightning_rad.nn.encoders import Encoder
    from lightning_rad.nn.radiomic_encoder import RadiomicEncoder
    from lightning_rad.objectives.knowledge_settings import FindingSide, RadiomicSide

    return {
        "encoder": Encoder("test_resnet", kwargs={"output_stride": 8}),
        "findings": FindingSide(FindingReading(("effusion", "nodule"), boxed=0.5)),
        "radiomic": RadiomicSide(partial(RadiomicEncoder, width=16), head),
    }


def _looks() -> dict[str, Any]:
    """An encoder with patches for a predictor of gaze, and a decoder of them."""
    from functools import partial

    from lightning_rad.modalities.gaze import Saliency
    from lightning_rad.nn.encoders import Encoder
    from lightning_rad.nn.gaze_decoder import GazeDecoder

    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2, "patch_size": 4, "proj_drop_rate": 0.1}
    return {
        "encoder": Encoder("vit_tiny_patch16_224", image_size=16, kwargs=vit),
        "gaze": Saliency(side=8),
        "decoder": partial(GazeDecoder, width=8, side=8),
    }


def _writes(schedule: Any) -> dict[str, Any]:
    """What REFERS has in place of a head; its slow weights meet the fast ones each third step."""
    from functools import partial

    from lightning_rad.nn.encoders import Encoder
    from lightning_rad.nn.report_decoder import ReportDecoder
    from lightning_rad.optim.lookahead import Lookahead

    vit = {"depth": 1, "embed_dim": 16, "num_heads": 2, "patch_size": 8, "proj_drop_rate": 0.1}
    inner = partial(torch.optim.AdamW, lr=1e-3)
    return {
        "encoder": Encoder("vit_tiny_patch16_224", image_size=16, kwargs=vit),
        "decoder": partial(ReportDecoder, width=16, heads=2, feedforward=16),
        "optimizer": lambda groups: Lookahead(groups, inner=inner, k=3),
        "schedule": schedule,
        "text_rate": 1e-4,
    }


def _objective(run: Run, rank: int) -> Any:
    objective = _made(run.objective)
    if run.exact:
        objective.double()
        for module in objective.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    step = objective.training_step

    def logged(batch: Any, batch_idx: int) -> Tensor:
        rows = [
            (int(batch.unit[row]), *(zlib.crc32(v[row].numpy().tobytes()) for v in batch.views))
            for row in range(len(batch.unit))
        ]
        with (run.folder / f"rows-{rank}.txt").open("a") as file:
            file.write(f"{objective.global_step} {rows}\n")
        return step(batch, batch_idx)

    objective.training_step = logged  # type: ignore[method-assign]
    return objective


class TinyEncoder(nn.Module):
    """An encoder without batch statistics, with dropout so that generator state matters."""

    out_features = 32

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride=2),
            nn.GELU(),
            nn.Flatten(),
            nn.LazyLinear(32),
            nn.Dropout(0.1),
        )
        self.layers(torch.zeros(1, 1, 16, 16))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.layers(images.to(next(self.parameters()).dtype))
        return out

    def fresh(self, seed: int) -> TinyEncoder:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return TinyEncoder()
