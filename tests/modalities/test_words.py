"""Tokenisers: round trip, limits, ends, threads, pickles, and what is refused."""

import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from lightning_rad.modalities.words import Words, train_words

TEXTS = [
    "The lungs are clear. No pleural effusion on the left.",
    "Small right pleural effusion; a 3.5 cm nodule (left upper zone).",
    "Café-au-lait: heart size is normal, xxxx.",
] * 3


@pytest.fixture(scope="module")
def trained() -> str:
    return train_words(TEXTS, vocabulary=300)


def read(text: str, *, limit: int = 100, keep_end: bool = False) -> Words:
    return Words(text, limit=limit, keep_end=keep_end)


def test_a_text_comes_back_lower_case_and_without_accents(trained: str) -> None:
    words = read(trained)
    for text in TEXTS:
        told = words.decode(words.encode(text).tolist())
        assert told == text.lower().replace("é", "e")


def test_a_text_is_start_tokens_end_in_int64(trained: str) -> None:
    words = read(trained)
    assert (words.unknown, words.start, words.end) == (0, 1, 2)
    ids = words.encode("The lungs are clear.")
    assert ids.dtype == np.int64
    assert ids[0] == 1
    assert ids[-1] == 2
    assert ids[1:-1].min() > 2
    assert ids.max() < words.vocabulary
    assert words.encode("").tolist() == [1, 2]


def test_a_cut_text_has_its_end_only_where_it_is_kept(trained: str) -> None:
    whole = read(trained).encode(TEXTS[0])
    for limit in (4, 9, len(whole) - 1):
        cut = read(trained, limit=limit).encode(TEXTS[0])
        kept = read(trained, limit=limit, keep_end=True).encode(TEXTS[0])
        assert cut.tolist() == whole[:limit].tolist()
        assert kept.tolist() == [*whole[: limit - 1], 2]
    for keep_end in (True, False):
        exact = read(trained, limit=len(whole), keep_end=keep_end).encode(TEXTS[0])
        assert exact.tolist() == whole.tolist()


@pytest.mark.parametrize("text", [" ".join(TEXTS * 300), "x" * 50_000, "clear " * 9 + "x" * 9000])
def test_of_a_long_text_the_same_is_kept_as_of_all_its_tokens(trained: str, text: str) -> None:
    every = read(trained, limit=10**9).encode(text)
    assert read(trained, limit=64).encode(text).tolist() == every[:64].tolist()


def test_a_special_token_written_in_a_report_is_text(trained: str) -> None:
    words = read(trained)
    ids = words.encode("clear [EOS] clear [SOS][UNK]").tolist()
    assert ids.count(1) == ids.count(2) == 1
    assert words.decode(ids).startswith("clear eos clear sos")  # brackets are unknown characters


def test_decoding_stops_at_the_first_end_or_padding(trained: str) -> None:
    words = read(trained)
    ids = words.encode("The lungs are clear.").tolist()
    assert words.decode([*ids, 5, 6]) == "the lungs are clear."
    assert words.decode([*ids[:-1], -1, 5, -1]) == "the lungs are clear."
    assert words.decode(ids[1:-1]) == "the lungs are clear."
    assert words.decode([]) == words.decode([-1]) == ""


def test_an_unknown_character_is_unknown(trained: str) -> None:
    words = read(trained)
    assert words.encode("clear 象").tolist().count(0) == 1


def test_training_twice_gives_equal_bytes() -> None:
    once = train_words(iter(TEXTS), vocabulary=120)
    assert once == train_words(TEXTS, vocabulary=120)
    assert read(once).digest == read(train_words(TEXTS, vocabulary=120)).digest


def test_a_vocabulary_is_what_was_got_and_a_pair_must_occur_often_enough() -> None:
    few = read(train_words(TEXTS, vocabulary=10_000)).vocabulary
    fewer = read(train_words(TEXTS, vocabulary=10_000, least=4)).vocabulary
    assert fewer < few < 1000
    assert read(train_words(TEXTS, vocabulary=80)).vocabulary == 80


@pytest.mark.parametrize(("vocabulary", "least"), [(3, 2), (300, 0)])
def test_a_vocabulary_of_nothing_is_refused(vocabulary: int, least: int) -> None:
    with pytest.raises(ValueError, match="accepted are"):
        train_words(TEXTS, vocabulary=vocabulary, least=least)


def test_the_digest_is_of_the_contents_not_of_the_layout_or_the_limits(trained: str) -> None:
    body = json.loads(trained)
    words = read(trained)
    assert len(words.digest) == 16
    assert read(json.dumps(body, indent=3), limit=9).digest == words.digest
    cut = body | {"truncation": {"max_length": 5, "strategy": "LongestFirst", "stride": 0}}
    cut["truncation"]["direction"] = "Right"
    short = read(json.dumps(cut))
    assert short.digest == words.digest
    assert short.encode(TEXTS[0]).tolist() == words.encode(TEXTS[0]).tolist()
    assert read(train_words(TEXTS[:1], vocabulary=300, least=1)).digest != words.digest


def test_pickled_it_is_the_same(trained: str) -> None:
    words = read(trained, limit=12, keep_end=True)
    again = pickle.loads(pickle.dumps(words))
    assert (again.digest, again.limit, again.vocabulary) == (words.digest, 12, words.vocabulary)
    assert again.encode(TEXTS[1]).tolist() == words.encode(TEXTS[1]).tolist()


def test_many_threads_read_as_one(trained: str) -> None:
    words = read(trained)
    texts = [f"{text} {i}" for i in range(200) for text in TEXTS[:3]]
    alone = [words.encode(text).tolist() for text in texts]
    with ThreadPoolExecutor(8) as pool:
        together = [ids.tolist() for ids in pool.map(words.encode, texts)]
    assert together == alone


def test_the_library_is_told_to_start_no_threads_of_its_own() -> None:
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"


def vocabulary_of(*tokens: str) -> str:
    ids = {token: i for i, token in enumerate(tokens)}
    model = {"type": "WordLevel", "vocab": ids, "unk_token": tokens[0]}
    return json.dumps({"version": "1.0", "model": model, "pre_tokenizer": {"type": "Whitespace"}})


@pytest.mark.parametrize(
    ("start", "end"), [("[CLS]", "[SEP]"), ("<s>", "</s>"), ("[SOS]", "[EOS]")]
)
def test_the_usual_names_of_start_and_end_are_known(start: str, end: str) -> None:
    words = read(vocabulary_of("[UNK]", end, start, "clear"))
    assert words.encode("clear").tolist() == [2, 3, 1]
    assert words.vocabulary == 4


def test_ids_with_gaps_are_counted_to_the_largest() -> None:
    body = json.loads(vocabulary_of("[UNK]", "[SOS]", "[EOS]", "clear"))
    body["model"]["vocab"]["clear"] = 40
    assert read(json.dumps(body)).vocabulary == 41


def test_what_is_no_tokeniser_is_refused_by_name(tmp_path: Path, trained: str) -> None:
    for name, contents in {
        "no.json": b"{}",
        "cut.json": trained.encode()[:200],
        "list.json": b"[1]",
        "raw.json": b"\xff\xfe",
    }.items():
        file = tmp_path / name
        file.write_bytes(contents)
        with pytest.raises(ValueError, match=f"{name}: not a tokenizer.json"):
            Words.read(str(file), limit=100, keep_end=False)
    with pytest.raises(ValueError, match=r"gone\.json: no such tokenizer"):
        Words.read(str(tmp_path / "gone.json"), limit=100, keep_end=False)
    with pytest.raises(ValueError, match=r"not a tokenizer\.json"):
        Words.read(str(tmp_path), limit=100, keep_end=False)
    bare = tmp_path / "bare.json"
    bare.write_text(vocabulary_of("[UNK]", "clear", "[SOS]"))
    with pytest.raises(ValueError, match=r"bare\.json: .*accepted are \[SOS\] \[EOS\], \[CLS\]"):
        Words.read(str(bare), limit=100, keep_end=False)
    good = tmp_path / "good.json"
    good.write_text(trained)
    assert Words.read(str(good), limit=100, keep_end=False).digest == read(trained).digest
    with pytest.raises(ValueError, match="a limit of 3"):
        Words.read(str(good), limit=3, keep_end=False)
