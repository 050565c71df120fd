"""Each third-party library has its door, no name says nothing, objectives are final."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lightning_rad

ROOT = Path(lightning_rad.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

DOORS = {
    "pytorch_lightning": (
        "cli/",
        "training/",
        "evaluation/",
        "objectives/",
        "data/datamodule.py",
    ),
    "webdataset": ("data/source.py", "sharding/write.py"),
    "pydicom": ("modalities/dicom/",),
    "imagecodecs": ("modalities/dicom/frames.py",),
    "timm": ("nn/",),
    "triton": tuple(
        f"kernels/{op}/fused_triton.py"
        for op in ("info_nce", "pairs", "render", "rows", "sigmoid_pairs")
    ),
    "torchvision": ("nn/",),
    "tokenizers": ("modalities/words.py",),
    "transformers": ("nn/text_pretrained.py",),
    "rich": ("cli/", "training/", "evaluation/", "sharding/"),
    "jsonargparse": ("cli/", "sharding/recipe.py"),
    "wandb": (),
    "PIL": (),
    "fsspec": ("storage/door.py",),
    "s3fs": ("storage/door.py",),
    "gcsfs": ("storage/door.py",),
    "aiohttp": ("storage/door.py",),
    "omegaconf": ("sharding/recipe.py",),
    "lightning": (),
}
SAY_NOTHING = {"utils", "util", "misc", "helpers", "helper", "common"}
FSDP_AND_CHECKPOINT = (
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint",
    "torch.distributed.device_mesh",
)
TENSORS_ON_DISK = ("torch.distributed.checkpoint", "torch.distributed.tensor")


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def misplaced(place: str, source: str) -> list[str]:
    """The imports of one file that its place does not allow."""
    found = []
    for name in imports(ast.parse(source)):
        library = name.split(".")[0]
        if library in DOORS and not place.startswith(DOORS[library] or ("\0",)):
            found.append(name)
        if library == "triton" and not place.endswith("/fused_triton.py"):
            found.append(name)
        if name.startswith("torch.distributed") and not place.startswith("collectives/"):
            allowed = place.startswith("training/") and (
                name == "torch.distributed" or name.startswith(FSDP_AND_CHECKPOINT)
            )
            if place.startswith("checkpoints/"):
                allowed = name.startswith(TENSORS_ON_DISK)
            if not allowed:
                found.append(name)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_libraries_enter_by_their_doors(file: Path) -> None:
    place = str(file.relative_to(ROOT))
    assert not misplaced(place, file.read_text())


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("losses/x.py", "import pytorch_lightning as pl"),
        ("losses/x.py", "import torch.distributed as dist"),
        (
            "objectives/x.py",
            "from torch import distributed\nfrom torch.distributed import all_gather",
        ),
        ("data/decode.py", "def f():\n    from PIL import Image"),
        ("kernels/x/__init__.py", "import triton.language as tl"),
        ("training/x.py", "import wandb"),
        ("nn/text.py", "from transformers import AutoModel"),
        ("data/x.py", "def f():\n    import tokenizers"),
        ("checkpoints/x.py", "import torch.distributed as dist"),
        ("nn/x.py", "from torch.distributed.checkpoint import save"),
    ],
)
def test_a_wrong_door_is_seen(place: str, source: str) -> None:
    assert misplaced(place, source)


def test_no_name_says_nothing() -> None:
    names = {part for f in FILES for part in f.relative_to(ROOT).with_suffix("").parts}
    assert not names & SAY_NOTHING


def test_every_objective_but_the_two_abstract_ones_is_final() -> None:
    abstract = {"Objective", "ReportObjective"}
    for file in (ROOT / "objectives").glob("*.py"):
        for node in ast.parse(file.read_text()).body:
            if not isinstance(node, ast.ClassDef) or node.name in abstract:
                continue
            if abstract & set(map(ast.unparse, node.bases)):
                marks = {ast.unparse(d) for d in node.decorator_list}
                assert "final" in marks, f"{file.name}: {node.name} is not @final"


def test_kernel_choice_is_not_made_at_import_time() -> None:
    for file in (ROOT / "kernels").rglob("__init__.py"):
        for node in ast.parse(file.read_text()).body:
            assert not isinstance(node, (ast.If, ast.Try)), f"{file}: a branch at import time"
