"""Corpora: what is cut, drawn and padded, checked against the token stream itself."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from projector.corpus import sources
from projector.corpus.batches import Corpus
from projector.corpus.tokens import read_corpus
from projector.errors import SettingError
from tests.conftest import make_text
from tests.refused import lacking, refused, refused_naming

CHAT_TEMPLATE = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def documents() -> list[str]:
    """Texts of 1 to 150 words: some shorter than a window, some of several."""
    return [make_text(n, seed=n) for n in (150, 3, 40, 1, 90, 60, 7)]


@pytest.fixture(scope="module")
def encoder_tokenizer() -> Any:
    """One token a number, between ``[CLS]`` and ``[SEP]``; no end-of-text token."""
    words = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(str(i) for i in range(20_000))]
    inner = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
    )


@pytest.fixture(scope="module")
def number_tokenizer(encoder_tokenizer: Any) -> Any:
    """The same without special tokens: an id tells its place in a text that counts up."""
    inner = Tokenizer.from_str(encoder_tokenizer.backend_tokenizer.to_str())
    inner.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture(scope="module")
def chat_tokenizer(tokenizer: Any) -> Any:
    chat = copy.deepcopy(tokenizer)
    chat.chat_template = CHAT_TEMPLATE
    return chat


def windows(corpus: Corpus) -> list[list[int]]:
    """The sequences as lists of ids."""
    assert corpus.ids.dtype == np.int32
    assert corpus.starts[0] == 0
    assert corpus.starts[-1] == len(corpus.ids)
    bounds = zip(corpus.starts[:-1], corpus.starts[1:], strict=True)
    return [corpus.ids[a:b].tolist() for a, b in bounds]


def counting(n: int, first: int = 0) -> str:
    return " ".join(str(i) for i in range(first, first + n))


# Windows


@pytest.mark.parametrize("sequence_length", [16, 33, 64])
def test_packed_windows_are_the_token_stream(
    tokenizer: Any, documents: list[str], sequence_length: int
) -> None:
    corpus = read_corpus(documents, tokenizer, sequence_length=sequence_length)
    found = windows(corpus)
    stream: list[int] = []
    for document in documents:
        stream += tokenizer(document, add_special_tokens=False)["input_ids"]
        stream.append(tokenizer.eos_token_id)
    # The tokenizer begins every text with <|endoftext|>, and so begins every window.
    assert all(window[0] == tokenizer.bos_token_id for window in found)
    assert [i for window in found for i in window[1:]] == stream
    assert all(len(window) == sequence_length for window in found[:-1])
    assert 1 < len(found[-1]) <= sequence_length


def test_packed_windows_between_special_tokens(encoder_tokenizer: Any) -> None:
    """No end-of-text token to stand between documents: they follow one another."""
    corpus = read_corpus(
        [counting(30), counting(25, first=30)],
        encoder_tokenizer,
        sequence_length=12,
        packed=True,
    )
    found = windows(corpus)
    assert all(window[0] == 1 and window[-1] == 2 for window in found)
    ids = [i for window in found for i in window[1:-1]]
    assert ids == encoder_tokenizer(counting(55), add_special_tokens=False)["input_ids"]
    assert [len(window) for window in found] == [12] * 5 + [7]


def test_unpacked_windows_belong_to_one_document_each(tokenizer: Any, documents: list[str]) -> None:
    corpus = read_corpus(documents, tokenizer, sequence_length=32, packed=False)
    expected = []
    for document in documents:
        ids = tokenizer(document, add_special_tokens=False)["input_ids"]
        expected += [[0, *ids[i : i + 31]] for i in range(0, len(ids), 31)]
    assert windows(corpus) == expected


def test_unpacked_windows_stand_between_special_tokens(encoder_tokenizer: Any) -> None:
    texts = [counting(25), counting(4, first=100), counting(10, first=200)]
    corpus = read_corpus(texts, encoder_tokenizer, sequence_length=12, packed=False)
    found = windows(corpus)
    assert [len(window) for window in found] == [12, 12, 7, 6, 12]
    assert all(window[0] == 1 and window[-1] == 2 for window in found)
    # A text that fits is what the tokenizer itself makes of it.
    assert found[3] == encoder_tokenizer(texts[1])["input_ids"]
    assert found[4] == encoder_tokenizer(texts[2])["input_ids"]
    inner = [i for window in found[:3] for i in window[1:-1]]
    assert inner == encoder_tokenizer(texts[0], add_special_tokens=False)["input_ids"]


def test_a_text_without_a_token_has_no_window(encoder_tokenizer: Any) -> None:
    corpus = read_corpus(["1 2", " ", "3"], encoder_tokenizer, sequence_length=12, packed=False)
    assert [len(window) for window in windows(corpus)] == [4, 3]


# Batches


@pytest.mark.parametrize("skip_first", [0, 1, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 1000])
def test_batches_pad_mask_and_keep(
    tokenizer: Any, documents: list[str], batch_size: int, skip_first: int
) -> None:
    corpus = read_corpus(
        documents, tokenizer, sequence_length=24, packed=False, skip_first=skip_first
    )
    expected = windows(corpus)
    assert len({len(window) for window in expected}) > 2  # else nothing is padded
    at = 0
    for batch in corpus.batches(batch_size):
        group = expected[at : at + batch_size]
        longest = max(len(window) for window in group)
        assert batch.first == at
        assert batch.input_ids.shape == (len(group), longest)
        for row, window in enumerate(group):
            n = len(window)
            pad = [corpus.pad_id] * (longest - n)
            assert batch.input_ids[row].tolist() == window + pad
            assert batch.attention_mask[row].tolist() == [1] * n + [0] * (longest - n)
            assert batch.keep[row].tolist() == [skip_first <= i < n for i in range(longest)]
        assert batch.n_tokens == sum(max(0, len(window) - skip_first) for window in group)
        at += len(group)
    assert at == corpus.n_sequences == len(expected)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("max_tokens", [None, 200])
def test_tokens_are_counted_once_whatever_the_batch_size(
    tokenizer: Any, documents: list[str], packed: bool, max_tokens: int | None
) -> None:
    corpus = read_corpus(
        documents,
        tokenizer,
        sequence_length=24,
        packed=packed,
        skip_first=2,
        max_tokens=max_tokens,
    )
    kept: dict[int, list[int]] = {}
    for batch_size in (1, 3, 16, 10_000):
        batches = list(corpus.batches(batch_size))
        assert sum(batch.n_tokens for batch in batches) == corpus.n_tokens
        kept[batch_size] = [i for b in batches for i in b.input_ids[b.keep].tolist()]
    assert kept[1] == kept[3] == kept[16] == kept[10_000]
    assert corpus.n_tokens == (max_tokens or corpus.n_available)


def test_padding_is_the_tokenizers_own(encoder_tokenizer: Any, tokenizer: Any) -> None:
    assert read_corpus(["1 2"], encoder_tokenizer).pad_id == encoder_tokenizer.pad_token_id == 0
    unpadded = copy.deepcopy(tokenizer)
    unpadded.pad_token = None
    assert read_corpus(["ka lo"], unpadded).pad_id == unpadded.eos_token_id


# Drawing


def places(corpus: Corpus) -> np.ndarray:
    """Where each sequence of a text that counts up begins in it; the ids of 0 … start at 4."""
    return corpus.ids[corpus.starts[:-1]].astype(np.int64) - 4


@pytest.mark.parametrize("max_tokens", [100, 900, 1000, 3333, 17_999])
def test_max_tokens_is_hit_exactly_and_drawn_evenly(number_tokenizer: Any, max_tokens: int) -> None:
    n_words, length = 20_000, 10
    corpus = read_corpus(
        [counting(n_words)],
        number_tokenizer,
        sequence_length=length,
        max_tokens=max_tokens,
        skip_first=1,
    )
    assert corpus.n_available == n_words * 9 // 10
    assert corpus.n_tokens == max_tokens
    assert sum(batch.n_tokens for batch in corpus.batches(7)) == max_tokens
    found = places(corpus)
    # Whole windows of the text, in order, none twice; only the last may be cut short.
    assert (found % length == 0).all()
    lengths = np.diff(corpus.starts)
    assert (lengths[:-1] == length).all()
    assert 1 < lengths[-1] <= length
    gaps = np.diff(found) // length
    assert gaps.min() >= 1
    assert gaps.max() - gaps.min() <= 1
    # The ends of the text are as near to a drawn window as its middle.
    assert found[0] <= gaps.max() * length
    assert n_words - found[-1] <= (gaps.max() + 1) * length
    for window in windows(corpus):
        assert window == list(range(window[0], window[0] + len(window)))


def test_drawing_covers_the_corpus_where_long_and_short_documents_take_turns(
    number_tokenizer: Any,
) -> None:
    """Even steps that meet long ones only fill the budget before the end of the corpus."""
    texts = [
        counting(40 if i % 2 == parity else 2, first=50 * i)
        for parity in (0, 1)
        for i in range(200)
    ]
    for half in (texts[:200], texts[200:]):
        corpus = read_corpus(
            half, number_tokenizer, sequence_length=64, packed=False, max_tokens=1000, skip_first=1
        )
        assert corpus.n_tokens == 1000
        quarters = np.bincount(places(corpus) // (50 * 50), minlength=4)
        assert quarters.min() >= 0.8 * quarters.max(), quarters


def test_drawing_from_documents_of_all_lengths_is_exact(tokenizer: Any) -> None:
    rng = np.random.default_rng(0)
    texts = [make_text(int(n), seed=i) for i, n in enumerate(rng.integers(1, 60, 120))]
    whole = read_corpus(texts, tokenizer, sequence_length=32, packed=False, skip_first=3)
    for max_tokens in (1, 37, 500, whole.n_available - 1, whole.n_available):
        corpus = read_corpus(
            texts, tokenizer, sequence_length=32, packed=False, skip_first=3, max_tokens=max_tokens
        )
        assert corpus.n_tokens == max_tokens
        assert sum(batch.n_tokens for batch in corpus.batches(16)) == max_tokens
        assert corpus.n_available == whole.n_available


@pytest.mark.parametrize("more", [0, 1, 10**9])
def test_asked_for_more_than_there_is_all_is_taken(
    tokenizer: Any, documents: list[str], more: int
) -> None:
    whole = read_corpus(documents, tokenizer, sequence_length=24)
    corpus = read_corpus(
        documents, tokenizer, sequence_length=24, max_tokens=whole.n_available + more
    )
    assert corpus.n_tokens == corpus.n_available == whole.n_tokens == whole.n_available
    assert np.array_equal(corpus.ids, whole.ids)
    assert np.array_equal(corpus.starts, whole.starts)
    assert corpus.notes == whole.notes == ()


def test_what_was_drawn_is_said(number_tokenizer: Any) -> None:
    corpus = read_corpus([counting(20_000)], number_tokenizer, sequence_length=10, max_tokens=1234)
    (note,) = corpus.notes
    assert lacking(note, "1,234 of 18,000 tokens", "drawn") == []


def test_sequences_without_a_token_that_counts_are_left_out(number_tokenizer: Any) -> None:
    corpus = read_corpus(
        ["1 2", "3 4 5 6 7", "8"], number_tokenizer, sequence_length=10, packed=False, skip_first=3
    )
    assert windows(corpus) == [[7, 8, 9, 10, 11]]
    assert corpus.n_tokens == corpus.n_available == 2


# Streams of the hub


class Stream:
    """Stands in for a dataset of the hub: counts what is read from it."""

    def __init__(self, texts: list[str]) -> None:
        self.texts, self.n_read = texts, 0

    def __call__(self, source: str) -> Iterator[str]:
        assert source == "some/name"
        for text in self.texts:
            self.n_read += 1
            yield text


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("skip_first", [0, 3, 8])
def test_a_stream_is_read_only_as_far_as_needed(
    number_tokenizer: Any, monkeypatch: pytest.MonkeyPatch, packed: bool, skip_first: int
) -> None:
    """Ten tokens a document, of which 10 − skip_first count where documents stand alone."""
    stream = Stream([counting(10)] * 5000)
    monkeypatch.setitem(sources.READERS, "hf", replace(sources.READERS["hf"], read=stream))
    corpus = read_corpus(
        "hf:some/name",
        number_tokenizer,
        sequence_length=64,
        packed=packed,
        skip_first=skip_first,
        max_tokens=2000,
    )
    assert corpus.n_tokens == 2000
    per_document = 10 * (64 - skip_first) / 64 if packed else 10 - skip_first
    # Documents are taken 128 at a time.
    assert 2000 / per_document <= stream.n_read <= 2000 / per_document + 2 * 128
    assert corpus.source == "hf:some/name"
    (note,) = corpus.notes
    assert lacking(note, "2,000 tokens", "stream") == []


def test_a_stream_that_ends_before_is_taken_whole(
    number_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Stream([counting(10)] * 50)
    monkeypatch.setitem(sources.READERS, "hf", replace(sources.READERS["hf"], read=stream))
    corpus = read_corpus("hf:some/name", number_tokenizer, skip_first=0, max_tokens=2000)
    assert (corpus.n_tokens, stream.n_read, corpus.notes) == (500, 50, ())


# Conversations


def conversation(n_words: int, seed: int) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": make_text(n_words, seed)},
        {"role": "assistant", "content": make_text(n_words, seed + 1)},
    ]


def rendered(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    """The template of the tests, without its engine."""
    text = "".join(f"<{m['role']}> {m['content']}\n" for m in messages)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@pytest.mark.parametrize("packed", [True, False])
def test_conversations_are_rendered_and_stand_alone(chat_tokenizer: Any, packed: bool) -> None:
    chats = [conversation(4, seed) for seed in (0, 2, 4)]
    corpus = read_corpus(chats, chat_tokenizer, sequence_length=128, packed=packed)
    assert windows(corpus) == [rendered(chat_tokenizer, chat) for chat in chats]
    assert corpus.notes == ()


def test_what_is_cut_from_conversations_is_said(chat_tokenizer: Any) -> None:
    chats = [conversation(n, n) for n in (2, 50, 60)]
    whole = [rendered(chat_tokenizer, chat) for chat in chats]
    assert len(whole[0]) < 40 < len(whole[1]) < len(whole[2])
    corpus = read_corpus(chats, chat_tokenizer, sequence_length=40)
    assert windows(corpus) == [ids[:40] for ids in whole]
    n_cut = len(whole[1]) + len(whole[2]) - 80
    (note,) = corpus.notes
    assert lacking(note, "2 of 3 conversations", "40 tokens") == []
    assert f"left out {n_cut:,} tokens" in note


def test_conversations_and_texts_together(chat_tokenizer: Any) -> None:
    chat = conversation(4, 0)
    corpus = read_corpus(["ka lo", chat, "mi ten"], chat_tokenizer, sequence_length=128)
    stream = [0]
    for text in ("ka lo", "mi ten"):
        stream += [*chat_tokenizer(text, add_special_tokens=False)["input_ids"], 0]
    assert sorted(windows(corpus)) == sorted([stream, rendered(chat_tokenizer, chat)])


def test_conversations_without_a_chat_template_are_refused(tokenizer: Any) -> None:
    with refused_naming("chat template"):
        read_corpus([conversation(4, 0)], tokenizer)


# Provenance


def test_sha256_is_of_the_documents_and_of_nothing_else(
    tokenizer: Any, chat_tokenizer: Any, documents: list[str]
) -> None:
    base = read_corpus(documents, tokenizer, sequence_length=24).sha256
    settings: list[dict[str, Any]] = [
        {"sequence_length": 48},
        {"max_tokens": 120},
        {"skip_first": 0},
        {"packed": False},
    ]
    for other in settings:
        assert read_corpus(documents, tokenizer, **{"sequence_length": 24, **other}).sha256 == base
    changed = [
        documents[::-1],
        documents[:-1],
        [documents[0] + " ", *documents[1:]],
        # The same characters, otherwise divided.
        [documents[0] + documents[1], *documents[2:]],
        [documents[0] + documents[1][:1], documents[1][1:], *documents[2:]],
    ]
    found = [read_corpus(texts, tokenizer, sequence_length=24).sha256 for texts in changed]
    assert len({base, *found}) == 1 + len(changed)
    chats = [conversation(4, 0), conversation(4, 1)]
    assert len({read_corpus([chat], chat_tokenizer).sha256 for chat in chats}) == 2


def test_a_file_is_named_without_its_path(tokenizer: Any, text_file: Path, text: str) -> None:
    from_file = read_corpus(str(text_file), tokenizer)
    assert from_file.source == "made-up.txt"
    assert read_corpus(str(text_file.parent) + "/", tokenizer).source == text_file.parent.name
    in_memory = read_corpus([text], tokenizer)
    assert in_memory.source == "texts"
    assert in_memory.sha256 == from_file.sha256
    assert np.array_equal(in_memory.ids, from_file.ids)


def test_documents_read_are_reported(tokenizer: Any) -> None:
    seen: list[int] = []
    read_corpus(["ka lo mi"] * 300, tokenizer, advance=seen.append)
    assert sum(seen) == 300
    assert len(seen) > 1


# Refusals


@pytest.mark.parametrize("content", ["", " \n \n"])
def test_an_empty_corpus_is_refused_by_name(tokenizer: Any, tmp_path: Path, content: str) -> None:
    path = tmp_path / "made-up.txt"
    path.write_text(content, encoding="utf-8")
    with refused_naming("'made-up.txt'", "empty"):
        read_corpus(str(path), tokenizer)


@pytest.mark.parametrize(("sequence_length", "skip_first"), [(3, 3), (2, 5)])
def test_sequences_no_longer_than_what_is_skipped_are_refused(
    tokenizer: Any, sequence_length: int, skip_first: int
) -> None:
    with refused("sequence_length", sequence_length, skip_first + 1):
        read_corpus(["ka lo mi"], tokenizer, sequence_length=sequence_length, skip_first=skip_first)


def test_sequences_without_room_beside_the_special_tokens_are_refused(
    encoder_tokenizer: Any,
) -> None:
    with refused("sequence_length", 2, "2 special tokens", 3):
        read_corpus(["1 2"], encoder_tokenizer, sequence_length=2, skip_first=0)
    corpus = read_corpus(["1 2"], encoder_tokenizer, sequence_length=3, skip_first=0, packed=False)
    assert windows(corpus) == [[1, 5, 2], [1, 6, 2]]


def test_documents_that_are_all_skipped_are_refused(number_tokenizer: Any) -> None:
    with refused_naming("2 sequences", "2 skipped tokens"):
        read_corpus(["1 2", "3"], number_tokenizer, packed=False, skip_first=2)


@pytest.mark.parametrize("max_tokens", [0, -5])
def test_a_budget_of_no_token_is_refused(tokenizer: Any, max_tokens: int) -> None:
    with pytest.raises(SettingError) as raised:
        read_corpus(["ka lo mi"], tokenizer, max_tokens=max_tokens)
    assert (raised.value.setting, raised.value.value) == ("max_tokens", max_tokens)
