"""The text of tokens equals what their tokenizer decodes, for every kind of vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import PreTrainedTokenizerFast

from projector.corpus.pieces import Pieces, readable

TEXTS = [
    "The self of  two  spaces, isn't it?\n\n\tdef method(self): return 12\n",
    "Ça coûte 3 € — 日本語 🙂🙂 and naïve café",
    "  leading and trailing  ",
]
SPECIAL = ["<unk>", "<s>", "</s>"]


def byte_level(split_digits: bool) -> Tokenizer:
    """As of GPT-2 (its pattern), or of Qwen2 and Llama 3 (a pattern of their own, NFC)."""
    tokenizer = Tokenizer(models.BPE())
    if split_digits:
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(r"\p{N}", "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS[:1], trainer)
    return tokenizer


def sentence_piece(strips: bool) -> Tokenizer:
    """As of Llama and Mistral (a space put before the text), or of Gemma: ▁ and byte fallback."""
    known = sorted({*"".join(TEXTS[:1]).replace(" ", "▁"), "▁"} - {"\n"})
    tokens = [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *known, "▁t", "▁th", "▁the"]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    before = [normalizers.Prepend("▁")] if strips else []
    tokenizer.normalizer = normalizers.Sequence([*before, normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strips else steps)
    return tokenizer


def unigram() -> Tokenizer:
    """As of T5 and XLM-R: Metaspace."""
    signs = sorted({*"".join(TEXTS).replace(" ", "▁")})
    pieces = [("<unk>", 0.0), *((s, -9.0) for s in signs), ("▁the", -3.0), ("▁method", -3.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


def word_piece() -> Tokenizer:
    """As of BERT."""
    words = [w for text in TEXTS for w in text.split()]
    signs = sorted({*"".join(words), *".,?!():'"})
    tokens = ["[UNK]", *signs, *(f"##{s}" for s in signs), "the", "method", "##thod"]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def word_level() -> Tokenizer:
    words = sorted({w for text in TEXTS for w in text.split()})
    vocabulary = {word: i for i, word in enumerate(["<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer


def with_end_of_word() -> Tokenizer:
    """As of the first GPT: a word's last token says that it is."""
    words = sorted({w for text in TEXTS[:1] for w in text.split()})
    signs = sorted({*"".join(words)})
    tokens = ["<unk>", *signs, *(f"{s}</w>" for s in signs)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    model = models.BPE(vocabulary, [], unk_token="<unk>", end_of_word_suffix="</w>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder()
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: byte_level(False),
    "qwen2": lambda: byte_level(True),
    "llama": lambda: sentence_piece(True),
    "gemma": lambda: sentence_piece(False),
    "t5": unigram,
    "bert": word_piece,
    "word-level": word_level,
    "gpt": with_end_of_word,
}


def wrapped(kind: str) -> Any:
    tokenizer = KINDS[kind]()
    tokenizer.add_tokens([AddedToken("<|im end|>", special=True), AddedToken("xyzzy")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("kind", KINDS)
def test_joined_texts_are_the_decoded_text(kind: str) -> None:
    tokenizer = wrapped(kind)
    pieces = Pieces.of_tokenizer(tokenizer)
    for text in [*TEXTS, "the <|im end|>method xyzzy the"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert len(ids) > 2
        texts = pieces.texts(ids)
        assert len(texts) == len(ids)
        decoded = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        # Up to the space that a vocabulary of words puts before the first, or behind the last.
        assert "".join(texts) in (decoded, f" {decoded}", f"{decoded} ")


@pytest.mark.parametrize("kind", ["gpt2", "qwen2", "llama", "gemma"])
def test_a_character_split_over_tokens_stands_whole_at_its_last(kind: str) -> None:
    tokenizer = wrapped(kind)
    pieces = Pieces.of_tokenizer(tokenizer)
    ids = tokenizer("the 🙂🙂 end", add_special_tokens=False)["input_ids"]
    texts = pieces.texts(ids)
    smiling = [k for k, text in enumerate(texts) if "🙂" in text]
    assert len(smiling) == 2
    assert texts[smiling[0] - 1] == ""
    assert "�" not in "".join(texts)
    # Cut within the character, both sides say that something is missing.
    cut = smiling[0]
    assert pieces.texts(ids[:cut])[-1].endswith("�")
    assert pieces.texts(ids[cut:])[0].startswith("�")
    # Alone in a list, a part of a character is the numbers of its bytes.
    assert pieces.text(ids[cut]).startswith("\\x")


def test_spaces_of_words_are_kept() -> None:
    tokenizer = wrapped("llama")
    pieces = Pieces.of_tokenizer(tokenizer)
    ids = tokenizer("with the method", add_special_tokens=False)["input_ids"]
    assert "".join(pieces.texts(ids)) == " with the method"
    # From the middle of a text too.
    assert "".join(pieces.texts(ids[pieces.texts(ids).index(" the") :])) == " the method"


def test_state_comes_back_and_some_ids_are_enough() -> None:
    tokenizer = wrapped("qwen2")
    ids = torch.tensor(tokenizer(TEXTS[1], add_special_tokens=False)["input_ids"])
    pieces = Pieces.of_tokenizer(tokenizer, ids)
    assert pieces.piece_ids.tolist() == sorted(set(ids.tolist()))
    again = Pieces.of_state({**pieces.state(), "other": torch.zeros(1)})
    assert again.texts(ids) == pieces.texts(ids) == Pieces.of_tokenizer(tokenizer).texts(ids)
    assert pieces.of_ids(ids[:3]).texts(ids[:3]) == pieces.texts(ids[:3])
    assert all(tensor.dtype != torch.bool for tensor in pieces.state().values())
    with pytest.raises(ValueError, match="piece_ends"):
        Pieces.of_state({"piece_ids": torch.zeros(1)})
    with pytest.raises(ValueError, match="tensors"):
        Pieces.of_state({**pieces.state(), "piece_ends": pieces.piece_ends[1:]})


def test_ids_that_are_not_known_are_their_numbers() -> None:
    tokenizer = wrapped("gpt2")
    n_tokens = len(tokenizer)
    pieces = Pieces.of_tokenizer(tokenizer, [1, 2, n_tokens + 5])
    assert n_tokens + 5 not in pieces
    assert 1 in pieces
    assert pieces.texts([n_tokens + 5]) == [pieces.text(n_tokens + 5)] == [f"⟨{n_tokens + 5}⟩"]
    assert Pieces.of_tokenizer(tokenizer, []).texts([3]) == ["⟨3⟩"]
    assert Pieces.of_tokenizer(tokenizer, []).texts([]) == []


def test_control_tokens_are_known() -> None:
    tokenizer = wrapped("llama")
    pieces = Pieces.of_tokenizer(tokenizer)
    end = tokenizer.convert_tokens_to_ids("<|im end|>")
    plain = tokenizer.convert_tokens_to_ids("xyzzy")
    assert pieces.is_special([end, plain]) == [True, False]
    assert Pieces.of_state(pieces.state()).is_special([end, plain]) == [True, False]


def test_a_tokenizer_written_in_python_is_read_by_its_vocabulary() -> None:
    class Slow:
        unk_token = "<unk>"
        all_special_ids = (0,)

        def __init__(self, *tokens: str) -> None:
            self.tokens = ("<unk>", *tokens)

        def __len__(self) -> int:
            return len(self.tokens)

        def get_vocab(self) -> dict[str, int]:
            return {token: i for i, token in enumerate(self.tokens)}

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [self.tokens[i] for i in ids]

    for tokens, text in (
        (("▁the", "▁", "m", "<0x0A>"), " the m\n"),
        (("Ġthe", "Ġ", "m", "Ċ"), " the m\n"),
        (("the", "##m", "##n", "m"), " themn m"),
        (("the</w>", "m", "n</w>"), "the mn "),
        (("the", "m"), " the m"),
    ):
        slow = Slow(*tokens)
        assert "".join(Pieces.of_tokenizer(slow).texts(range(1, len(slow)))) == text


class Bytes:
    """A tokenizer of another's making, whose tokens are bytes."""

    unk_token = None
    tokens = (b" caf", b"\xc3", b"\xa9", b"!")

    def __len__(self) -> int:
        return len(self.tokens)

    def get_vocab(self) -> dict[bytes, int]:
        return {token: i for i, token in enumerate(self.tokens)}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[bytes]:
        return [self.tokens[i] for i in ids]


def test_tokens_may_be_bytes() -> None:
    assert Pieces.of_tokenizer(Bytes()).texts(range(4)) == [" caf", "", "é", "!"]


def test_where_a_tokenizer_does_not_say_how_it_spells_it_decodes_each_token() -> None:
    class Closed(Bytes):
        def get_vocab(self) -> dict[bytes, int]:
            raise NotImplementedError

        def decode(self, ids: list[int]) -> str:
            return "".join(f"<{i}>" for i in ids)

    assert Pieces.of_tokenizer(Closed(), [3, 1]).texts([1, 3]) == ["<1>", "<3>"]


def test_readable_shows_what_cannot_be_seen() -> None:
    assert readable(" self") == "␣self"
    assert readable("\n\n\t") == "⏎⏎⇥"
    assert readable("    ") == "␣␣␣␣"
    assert readable("two words") == "two words"
    assert readable("a\u200bb") == "a⟨U+200B⟩b"
    assert readable("日本 é") == "日本 é"
    assert readable(" a\n  b", running=True) == " a⏎\n  b"
