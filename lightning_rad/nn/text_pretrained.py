"""A text encoder of Hugging Face's transformers, out of a local folder.

Shape letters: B texts, T tokens, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from lightning_rad.modalities.words import Words
from lightning_rad.nn.frozen import freeze
from lightning_rad.nn.text import TextEncoder, check_limit, mean_of_real

Pooling = Literal["pooler", "mean", "first"]
TOKENIZER = "tokenizer.json"


class PretrainedText(TextEncoder):
    """Any encoder that `AutoModel` builds from a folder with its config, weights and tokeniser.

    folder: as `save_pretrained` writes it or a model's page offers it: config.json, weights
    (safetensors, or .bin, read as weights only), tokenizer.json or what else its tokeniser is made
    of. Nothing is downloaded and no code of the folder is run. words: only its limit is used; the
    tokeniser is the folder's own. pooling: what of the last layer is kept, the `pooler`'s output
    (Bio_ClinicalBERT in REFERS), the `mean` over tokens that are not padding, or the `first` token.
    A pooler that is not used is not built: it would wait for a gradient. out_features: checked
    against the folder's width, where given. frozen: submodules of the model, by dotted name, that
    do not learn.

    On the meta device weights are not read: another rank's will replace them. Raises ValueError
    where the folder, its files, the weights, the tokeniser and the limit do not go together, and
    where transformers is not installed.
    """

    def __init__(
        self,
        words: Words,
        *,
        folder: str,
        pooling: Pooling = "mean",
        out_features: int | None = None,
        frozen: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if pooling not in get_args(Pooling):
            raise ValueError(f"text.pooling: '{pooling}' is not one of {list(get_args(Pooling))}")
        config = _config(Path(folder))
        self.out_features = _width(config, folder)
        if out_features not in (None, self.out_features):
            raise ValueError(
                f"text.out_features: {out_features}, and {folder} is {self.out_features} wide"
            )
        self.words = _words(Path(folder), words.limit)
        if self.words.vocabulary > config.vocab_size:
            raise ValueError(
                f"text.folder: {folder} has a tokeniser of {self.words.vocabulary} words and "
                f"weights for {config.vocab_size}"
            )
        self.pooling: Pooling = pooling
        self.net = _net(Path(folder), config, with_pooler=pooling == "pooler")
        positions = _positions(self.net, config)
        if positions is not None and words.limit > positions:
            raise ValueError(
                f"reports.limit: {words.limit} tokens, and {folder} has {positions} positions"
            )
        freeze(self.net, frozen)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        """Features [B, out_features] of tokens, int64, -1 behind the end of each text."""
        check_limit("text", tokens_BT, self.words.limit)
        real_BT = tokens_BT >= 0
        given = self.net(input_ids=tokens_BT.clamp_min(0), attention_mask=real_BT.long())
        if self.pooling == "pooler":
            pooled_BD: Tensor = given.pooler_output
            return pooled_BD
        states_BTD: Tensor = given.last_hidden_state
        return mean_of_real(states_BTD, tokens_BT) if self.pooling == "mean" else states_BTD[:, 0]

    def blocks(self) -> list[nn.Module]:
        """The layers; none where the model does not hold as many as its config says, in a row."""
        count = self.net.config.num_hidden_layers  # type: ignore[union-attr]
        rows = (m for m in self.net.modules() if isinstance(m, nn.ModuleList) and len(m) == count)
        return list(next(rows, nn.ModuleList()))


def _positions(net: nn.Module, config: Any) -> int | None:
    """The most tokens that a model has positions for; RoBERTa's begin behind its padding's id."""
    for name, table in net.named_modules():
        if name.endswith("position_embeddings") and isinstance(table, nn.Embedding):
            first = 0 if table.padding_idx is None else table.padding_idx + 1
            return table.num_embeddings - first
    positions: int | None = getattr(config, "max_position_embeddings", None)
    return positions


def _transformers() -> Any:
    try:
        import transformers  # noqa: PLC0415 - takes seconds, and is an extra
    except ImportError as error:
        raise ValueError(
            "PretrainedText needs transformers: pip install lightning-rad[text]"
        ) from error
    return transformers


def _config(folder: Path) -> Any:
    if not folder.is_dir():
        raise ValueError(f"text.folder: no folder {folder}")
    if not (folder / "config.json").is_file():
        raise ValueError(f"text.folder: {folder} has no config.json")
    auto = _transformers().AutoConfig
    try:
        return auto.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, OSError) as error:
        raise ValueError(
            f"text.folder: {folder}/config.json is of no known model: {_line(error)}"
        ) from error


def _width(config: Any, folder: str) -> int:
    width = getattr(config, "hidden_size", None)
    if not isinstance(width, int) or getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"text.folder: {folder} holds a '{config.model_type}', not a text encoder")
    return width


def _words(folder: Path, limit: int) -> Words:
    """The folder's own tokeniser; a text that is cut keeps its end."""
    file = folder / TOKENIZER
    if file.is_file():
        return Words.read(str(file), limit=limit, keep_end=True)
    try:
        tokenizer = _transformers().AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
        json = tokenizer.backend_tokenizer.to_str()
    except (ValueError, KeyError, OSError, AttributeError, ImportError) as error:
        raise ValueError(f"text.folder: {folder} has no tokeniser: {_line(error)}") from error
    files = sorted(set(tokenizer.vocab_files_names.values()))
    if not any((folder / name).is_file() for name in files):  # the library then makes an empty one
        raise ValueError(f"text.folder: {folder} has no tokeniser, of {files} none")
    return Words(json, limit=limit, keep_end=True, where=str(folder))


def _net(folder: Path, config: Any, *, with_pooler: bool) -> nn.Module:
    """The model in float32 and in training mode, every weight of it from the folder."""
    auto = _transformers().AutoModel
    if torch.empty(0).is_meta:
        net: nn.Module = auto.from_config(config, trust_remote_code=False)
        missing: set[str] = set()
    else:
        net, missing = _loaded(folder, auto)
    if not with_pooler and getattr(net, "pooler", None) is not None:
        net.pooler = None  # type: ignore[assignment]
        missing = {name for name in missing if not name.startswith("pooler.")}
    elif with_pooler and getattr(net, "pooler", None) is None:
        raise ValueError(f"text.pooling: {folder} has no pooler; choose mean or first")
    if missing and all(name.startswith("pooler.") for name in missing):
        raise ValueError(f"text.pooling: {folder} has no weights of a pooler; choose mean or first")
    if missing:
        names = sorted(missing)
        raise ValueError(f"text.folder: {folder} lacks {len(names)} weights, such as {names[:3]}")
    return net.train()  # the loader leaves it in eval mode, and nobody would set its dropout again


def _loaded(folder: Path, auto: Any) -> tuple[nn.Module, set[str]]:
    with _quiet():
        try:
            net, found = auto.from_pretrained(
                str(folder),
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=any(folder.glob("*.safetensors")),
                output_loading_info=True,
                dtype=torch.float32,
            )
        except Exception as error:  # of whatever library read the file
            raise ValueError(
                f"text.folder: the weights of {folder} do not fit its config.json: {_line(error)}"
            ) from error
    return net, set(found["missing_keys"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bar and its table of weights, of which each rank would tell.

    What matters of that table is an error here.
    """
    logging = _transformers().utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def _line(error: BaseException) -> str:
    """The first line of what a library says, not to fill the screen."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]
