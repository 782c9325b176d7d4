"""Perplexity: every protocol against a loop over single tokens, and what must not change it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import PreTrainedTokenizerFast

from projector.corpus.documents import hash_document, hash_documents
from projector.corpus.sources import read_documents
from projector.model.context import find_context
from projector.model.loading import load_model
from pruning.scoring import perplexity
from pruning.scoring.disjoint import check_disjoint
from pruning.scoring.perplexity import Score, score
from pruning.scoring.spacing import without_spacing
from pruning.scoring.windows import PROTOCOLS, EvaluationText, prepare
from tests.conftest import make_text
from tests.families import ENCODERS, FAMILIES, build
from tests.refused import lacking, refused, refused_naming

CONTEXT = 16
CAUSAL = [family for family in FAMILIES if family not in ENCODERS]
END = 0


@pytest.fixture(scope="module")
def bare(tokenizer: Any) -> Any:
    """The same vocabulary, but texts begin with nothing, as GPT-2's do."""
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|endoftext|>")


@pytest.fixture(scope="module")
def model() -> Any:
    return build("qwen2")


@pytest.fixture(scope="module")
def documents() -> list[str]:
    return [make_text(n, seed=n) for n in (40, 9, 23)]


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


@torch.no_grad()
def nats_of(model: Any, context: list[int], token: int) -> float:
    """−ln p of one token after a context, from one run of the model over that context alone."""
    logits = model(input_ids=torch.tensor([context])).logits[0, -1].double()
    return float(torch.logsumexp(logits, 0) - logits[token])


def expected_nats(model: Any, windows: list[tuple[list[int], list[int]]]) -> list[float]:
    """Nats of each window: a context, and the tokens that follow it and are scored."""
    return [
        sum(
            nats_of(model, [*context, *scored[:i]], token)
            for i, token in enumerate(scored)
            if context or i
        )
        for context, scored in windows
    ]


def assert_scores(found: Score, nats: list[float], n_tokens: int) -> None:
    assert found.n_tokens == n_tokens
    torch.testing.assert_close(
        found.window_nats, torch.tensor(nats, dtype=torch.float64), rtol=1e-5, atol=1e-5
    )
    assert found.nats == pytest.approx(sum(nats), rel=1e-6)
    if found.n_words is None:
        assert found.perplexity == pytest.approx(math.exp(sum(nats) / n_tokens), rel=1e-5)


def test_windows_predict_every_token_from_the_start_of_its_window(
    model: Any, tokenizer: Any, documents: list[str]
) -> None:
    """Windows hold 16 tokens of text each; all are scored, the first from <|endoftext|> alone."""
    text = prepare(documents, tokenizer, CONTEXT)
    stream = [i for d in documents for i in [*plain_ids(tokenizer, d), END]]
    assert len(stream) % CONTEXT  # There is a tail, and it is scored too.
    windows = [([END], stream[i : i + CONTEXT]) for i in range(0, len(stream), CONTEXT)]
    assert text.n_positions == CONTEXT
    assert_scores(score(model, text), expected_nats(model, windows), len(stream))


def test_windows_without_a_start_leave_their_first_token_out(
    model: Any, bare: Any, documents: list[str]
) -> None:
    text = prepare(documents, bare, CONTEXT)
    stream = [i for d in documents for i in [*plain_ids(bare, d), END]]
    parts = [stream[i : i + CONTEXT] for i in range(0, len(stream), CONTEXT)]
    nats = expected_nats(model, [([], part) for part in parts])
    assert_scores(score(model, text), nats, len(stream) - len(parts))


def test_windows_are_never_longer_than_2048(bare: Any) -> None:
    text = prepare([make_text(3000)], bare, 1 << 17)
    assert text.lengths.max() == 2048
    assert prepare([make_text(3000)], bare, None).lengths.max() == 2048


def test_stride_scores_each_token_once_with_enough_before_it(
    model: Any, tokenizer: Any, documents: list[str]
) -> None:
    stream = [i for d in documents for i in [*plain_ids(tokenizer, d), END]]
    text = prepare(documents, tokenizer, CONTEXT, "stride", stride=5)
    windows, scored_upto, begin = [], 0, 0
    while scored_upto < len(stream):
        end = min(begin + CONTEXT, len(stream))
        windows.append(([END, *stream[begin:scored_upto]], stream[scored_upto:end]))
        if begin:
            assert scored_upto - begin == CONTEXT - 5
        scored_upto, begin = end, begin + 5
    assert_scores(score(model, text), expected_nats(model, windows), len(stream))


def test_stride_without_a_start_follows_the_guide(model: Any, bare: Any) -> None:
    """As in Hugging Face's guide: labels of what is context are masked, the loss shifts."""
    document = make_text(60)
    text = prepare([document], bare, CONTEXT, "stride", stride=6)
    ids = torch.tensor([[*plain_ids(bare, document), END]])
    total, n_counted, previous_end = 0.0, 0, 0
    for begin in range(0, ids.shape[1], 6):
        end = min(begin + CONTEXT, ids.shape[1])
        window = ids[:, begin:end]
        labels = window.clone()
        labels[:, : previous_end - end if previous_end else 0] = -100
        n_labels = int((labels[:, 1:] != -100).sum())
        if n_labels:
            with torch.no_grad():
                total += float(model(window, labels=labels).loss) * n_labels
        n_counted += n_labels
        previous_end = end
        if end == ids.shape[1]:
            break
    found = score(model, text)
    assert found.n_tokens == n_counted
    assert found.nats == pytest.approx(total, rel=1e-5)


@pytest.mark.parametrize("start", [True, False])
def test_stride_of_a_whole_window_equals_windows(
    model: Any, tokenizer: Any, bare: Any, documents: list[str], start: bool
) -> None:
    words = tokenizer if start else bare
    first = score(model, prepare(documents, words, CONTEXT))
    second = score(model, prepare(documents, words, CONTEXT, "stride", stride=CONTEXT))
    assert torch.equal(first.window_nats, second.window_nats)
    assert first.figures() == second.figures()


def test_stride_is_1024_or_half_a_window(tokenizer: Any) -> None:
    source = [make_text(6000)]
    assert np.diff(prepare(source, tokenizer, 64, "stride").begins)[0] == 32
    assert np.diff(prepare(source, tokenizer, 2048, "stride").begins)[0] == 1024
    assert np.diff(prepare(source, tokenizer, 8192, "stride").begins)[0] == 1024


@pytest.mark.parametrize("start", [True, False])
def test_gptq_joins_by_blank_lines_and_drops_the_tail(
    tokenizer: Any, bare: Any, start: bool
) -> None:
    words = tokenizer if start else bare
    documents = [make_text(400, seed) for seed in range(6)]
    whole = words("\n\n".join(documents))["input_ids"]
    text = prepare(documents, words, 4096, "gptq-2048")
    assert len(whole) % 2048
    assert text.n_windows == len(whole) // 2048 >= 2
    assert np.array_equal(text.ids, whole)
    assert text.prefix == ()
    assert text.begins.tolist() == [2048 * i for i in range(text.n_windows)]
    assert text.lengths.tolist() == [2048] * text.n_windows
    assert text.window_tokens.tolist() == [2047] * text.n_windows


def test_gptq_scores_all_but_the_first_token(tokenizer: Any) -> None:
    """BLOOM sets no limit to its context. Reference: the model's own loss, window by window."""
    model = build("bloom")
    text = prepare([make_text(3000)], tokenizer, None, "gptq-2048")
    found = score(model, text)
    for i, nats in enumerate(found.window_nats):
        window = torch.tensor(text.ids[2048 * i : 2048 * (i + 1)], dtype=torch.int64)[None]
        with torch.no_grad():
            loss = model(window, labels=window).loss
        assert float(nats) == pytest.approx(float(loss) * 2047, rel=1e-5)


def test_lm_eval_word_scores_each_document_whole(
    model: Any, tokenizer: Any, documents: list[str]
) -> None:
    text = prepare(documents, tokenizer, CONTEXT, "lm-eval-word")
    windows = []
    for document in documents:
        ids = plain_ids(tokenizer, document)
        windows.append(([END], ids[:CONTEXT]))
        for first in range(CONTEXT, len(ids), CONTEXT):
            scored = ids[first : first + CONTEXT]
            # As long as the others: context reaches back from what is scored.
            end = first + len(scored)
            windows.append((([END, *ids])[end - CONTEXT : first + 1], scored))
    found = score(model, text)
    n_tokens = sum(len(plain_ids(tokenizer, d)) for d in documents)
    nats = expected_nats(model, windows)
    assert_scores(found, nats, n_tokens)
    n_words = sum(len(re.split(r"\s+", d)) for d in documents)
    assert found.n_words == n_words
    assert found.perplexity == pytest.approx(math.exp(sum(nats) / n_words), rel=1e-5)
    assert text.n_positions == CONTEXT


def test_lm_eval_word_predicts_from_the_end_mark_where_there_is_no_beginning(bare: Any) -> None:
    assert bare.bos_token_id is None
    text = prepare(["kalomi ten"], bare, CONTEXT, "lm-eval-word")
    assert text.ids[0] == END
    assert text.window_tokens.tolist() == [len(plain_ids(bare, "kalomi ten"))]


def test_lm_eval_word_predicts_from_the_beginning_mark_where_there_is_one(bare: Any) -> None:
    other = PreTrainedTokenizerFast(
        tokenizer_object=bare.backend_tokenizer, bos_token="k", eos_token="<|endoftext|>"
    )
    text = prepare(["milo ten"], other, CONTEXT, "lm-eval-word")
    assert text.ids[0] == other.bos_token_id != END


def test_detokenize_scores_plain_punctuation_and_counts_the_original(tokenizer: Any) -> None:
    original = " = Tests = \n A 3 @.@ 5 m ( 11 ft ) well @-@ known dog 's , 1 @,@ 000 : yes ! \n"
    plain = "= Tests =\nA 3.5 m (11 ft) well-known dog's, 1,000: yes!\n"
    text = prepare([original], tokenizer, 64, "lm-eval-word", detokenize=True)
    assert tokenizer.decode(text.ids[1:]) == " " + plain
    assert text.n_bytes == len(original.encode())
    assert text.n_words == len(re.split(r"\s+", original))
    assert "WikiText" in text.description


@pytest.mark.parametrize(
    ("spaced", "plain"),
    [
        ('a " b c " d', 'a "b c" d'),
        ("a [ b ] { c } d", "a [b] {c} d"),
        ("dogs ' tail", "dogs' tail"),
        ("= = = Deep = = =", "===Deep===".replace("Deep", " Deep ")),
        ("= = Head = =", "== Head =="),
        ("12 ° N of", "12°N of"),
        ("a ; b ? c", "a; b? c"),
    ],
)
def test_each_rule_of_spacing(spaced: str, plain: str) -> None:
    assert without_spacing(spaced) == plain


@pytest.mark.parametrize("family", CAUSAL)
def test_neither_padding_nor_batches_change_a_score(
    family: str, tokenizer: Any, documents: list[str]
) -> None:
    """Documents of unequal length: five at once are padded, one at a time never."""
    model = build(family)
    text = prepare([*documents, "ka lo", "mi"], tokenizer, 32, "lm-eval-word")
    assert len(set(text.lengths.tolist())) > 3
    alone = score(model, text, batch_size=1)
    for batch_size in (2, 5, None):
        together = score(model, text, batch_size=batch_size)
        assert together.nats == pytest.approx(alone.nats, rel=1e-6)
        torch.testing.assert_close(together.window_nats, alone.window_nats, rtol=1e-5, atol=1e-4)


def test_a_small_budget_of_logits_changes_nothing(
    model: Any, tokenizer: Any, documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = prepare(documents, tokenizer, CONTEXT)
    whole = score(model, text)
    monkeypatch.setattr(perplexity, "_CHUNK_BYTES", 4 * 320 * 3)
    monkeypatch.setattr(perplexity, "_LOGIT_BYTES", 4 * 320 * CONTEXT * 2)
    assert perplexity.batch_size_of(model, CONTEXT) == 2
    assert score(model, text).nats == pytest.approx(whole.nats, rel=1e-6)


def test_unneeded_logits_are_not_made(
    model: Any, tokenizer: Any, documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a short stride most of a window is context."""
    text = prepare(documents, tokenizer, CONTEXT, "stride", stride=2, max_windows=4)
    shapes: list[int] = []
    hook = model.lm_head.register_forward_hook(
        lambda module, args, output: shapes.append(output.shape[1])
    )
    try:
        score(model, text, batch_size=1)
    finally:
        hook.remove()
    # The first pass asks whether the model is causal.
    assert shapes[1:] == [2] * 4


TEXTS = {
    "ascii": make_text(60),
    "unicode": "naïve Žluťoučký 猫は可愛い 🙂🙃 \u0300e\u0301 — “x” \U0001f469\u200d\U0001f680 end",
    "spaces": "  a\n\n\n    b\t\tc   \r\n   ",
    "mark": "a <|endoftext|> b",
}


@pytest.mark.parametrize("name", TEXTS)
def test_bytes_of_the_scored_tokens_are_those_of_the_text(tokenizer: Any, name: str) -> None:
    text = prepare([TEXTS[name]], tokenizer, 4, "windows")
    assert text.n_bytes == len(TEXTS[name].encode())
    rolling = prepare([TEXTS[name]], tokenizer, 4, "lm-eval-word")
    assert rolling.n_bytes == len(TEXTS[name].encode())


def test_a_window_counts_the_bytes_of_its_own_tokens(bare: Any) -> None:
    """Eight tokens of two bytes each, being halves of characters; a window's first is left out."""
    document = "猫" * 4
    ids = plain_ids(bare, document)
    assert len(ids) == 12
    text = prepare([document], bare, 5, max_windows=2)
    assert text.window_tokens.tolist() == [4, 4]
    assert text.n_bytes == 8


def word_tokenizer(**options: Any) -> Any:
    """Whole words, lower case: tokens are no bytes."""
    words = {w: i for i, w in enumerate(["<unk>", "ka", "lo", "é", "z"])}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<unk>", **options
    )


def test_bytes_of_tokens_that_are_words_include_the_space_before_them() -> None:
    document = "ka  lo é ka unseen é  "
    text = prepare([document], word_tokenizer(), 3, "lm-eval-word")
    assert text.n_bytes == len(document.encode())
    text = prepare([document], word_tokenizer(), 4, "windows", max_windows=1)
    # The first window is 'ka lo é ka', its first token left out: '  lo', ' é', ' ka'.
    assert text.n_bytes == len("  lo é ka".encode())


def test_bytes_at_the_end_of_a_text_belong_to_its_last_token() -> None:
    document = "ka lo é   "
    # One window of all there is: three words and the end mark; the first word is left out.
    text = prepare([document], word_tokenizer(), 4)
    assert text.window_tokens.tolist() == [3]
    assert text.n_bytes == len(document.encode()) - len("ka")


def test_bytes_are_unknown_where_the_tokenizer_gives_no_offsets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = word_tokenizer()
    monkeypatch.setattr(type(words), "is_fast", False)
    text = prepare(["ka lo ka lo ka lo"], words, 4)
    assert text.n_bytes is None
    found = score(build("qwen2"), text)
    assert found.bits_per_byte is None
    assert found.figures()["bits_per_byte"] is None
    assert "bytes" in found.figures()["reason"]
    assert found.figures()["perplexity"] > 1


def test_windows_are_drawn_evenly_and_always_the_same(tokenizer: Any) -> None:
    source = [make_text(2000)]
    every = prepare(source, tokenizer, CONTEXT)
    some = prepare(source, tokenizer, CONTEXT, max_windows=8)
    assert every.n_windows > 80
    assert some.n_windows == 8
    assert set(some.begins) <= set(every.begins)
    # Even: no gap is longer than another by more than a window, and both ends are reached.
    gaps = np.diff(some.begins)
    assert gaps.max() - gaps.min() <= CONTEXT
    assert some.begins[0] < every.ids.size / 8
    assert some.begins[-1] > every.ids.size * 7 / 8
    assert (some.lengths == CONTEXT + 1).all()
    assert f"8 of {every.n_windows:,} windows" in some.description
    assert some.sha256 == prepare(source, tokenizer, CONTEXT, max_windows=8).sha256
    assert some.sha256 != every.sha256
    more = prepare(source, tokenizer, CONTEXT, max_windows=10**6)
    assert more.sha256 == every.sha256


def test_drawn_windows_score_as_they_do_among_all(model: Any, tokenizer: Any) -> None:
    source = [make_text(300)]
    every = prepare(source, tokenizer, CONTEXT)
    some = prepare(source, tokenizer, CONTEXT, max_windows=3)
    at = {begin: i for i, begin in enumerate(every.begins)}
    whole, part = score(model, every), score(model, some)
    chosen = [at[begin] for begin in some.begins]
    torch.testing.assert_close(part.window_nats, whole.window_nats[chosen], rtol=1e-5, atol=1e-5)
    assert part.nats == pytest.approx(float(part.window_nats.sum()))
    assert int(part.window_tokens.sum()) == part.n_tokens


def test_bits_per_byte_are_nats_by_the_logarithm_of_two(model: Any, tokenizer: Any) -> None:
    document = TEXTS["unicode"]
    found = score(model, prepare([document], tokenizer, CONTEXT))
    assert found.bits_per_byte == pytest.approx(
        found.nats / math.log(2) / len(document.encode()), rel=1e-12
    )


def test_the_model_is_left_as_it_was(tokenizer: Any, documents: list[str]) -> None:
    model = build("gpt2").train()
    model.transformer.h[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags = [module.training for module in model.modules()]
    text = prepare(documents, tokenizer, CONTEXT)
    first = score(model, text)
    assert [module.training for module in model.modules()] == flags
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    # Dropout was off: GPT-2 has it in training.
    assert first.nats == score(model.eval(), text).nats
    # Sums can be used where gradients are followed.
    assert (first.window_nats * torch.ones(1, requires_grad=True)).sum().requires_grad


def test_progress_counts_documents_and_windows(
    model: Any, tokenizer: Any, documents: list[str]
) -> None:
    class Watch:
        def __init__(self) -> None:
            self.stages: list[tuple[str, int | None, str]] = []
            self.done: list[int] = []

        def begin(self, stage: str, total: int | None, unit: str) -> None:
            self.stages.append((stage, total, unit))
            self.done.append(0)

        def advance(self, n: int) -> None:
            self.done[-1] += n

        def end(self) -> None:
            pass

    watch = Watch()
    text = prepare(documents, tokenizer, CONTEXT, progress=watch)
    score(model, text, batch_size=2, progress=watch)
    assert [unit for _, _, unit in watch.stages] == ["documents", "windows"]
    assert watch.stages[1][1] == text.n_windows
    assert watch.done == [len(documents), text.n_windows]


class Broken(nn.Module):
    """A model whose logits are what ``spoil`` makes of them."""

    def __init__(self, model: Any, spoil: Any) -> None:
        super().__init__()
        self.inner, self.spoil, self.config = model, spoil, model.config
        self.main_input_name = "input_ids"

    def get_input_embeddings(self) -> Any:
        return self.inner.get_input_embeddings()

    def forward(self, input_ids: Any, **options: Any) -> Any:
        output = self.inner(input_ids, **options)
        output.logits = self.spoil(output.logits)
        return output


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_output_that_is_no_number_is_null_with_its_reason(
    tokenizer: Any, documents: list[str], value: float
) -> None:
    def spoil(logits: Any) -> Any:
        logits = logits.clone()
        logits[0, -1] = value
        return logits

    text = prepare(documents, tokenizer, CONTEXT)
    found = score(Broken(build("qwen2"), spoil), text, batch_size=text.n_windows - 1)
    figures = found.figures()
    assert figures["perplexity"] is None
    assert figures["nats"] is None
    assert figures["bits_per_byte"] is None
    assert f"2 of {text.n_windows} windows" in figures["reason"]
    json.dumps(figures, allow_nan=False)


def test_perplexity_that_overflows_is_null_with_its_reason(
    tokenizer: Any, documents: list[str]
) -> None:
    found = score(
        Broken(build("qwen2"), lambda logits: logits * 1e6), prepare(documents, tokenizer, CONTEXT)
    )
    assert found.perplexity == math.inf
    assert found.figures()["perplexity"] is None
    assert "overflows" in found.figures()["reason"]
    assert found.figures()["bits_per_byte"] > 1e3
    json.dumps(found.figures(), allow_nan=False)


def test_what_is_not_scored_may_be_no_number(tokenizer: Any, documents: list[str]) -> None:
    """A padded position can give NaN without harm."""
    text = prepare(["ka lo mi ten ra so", "mi"], tokenizer, CONTEXT, "lm-eval-word")

    def spoil(logits: Any) -> Any:
        if len(logits) == 2:
            logits = logits.clone()
            logits[1, text.lengths.min() - 1 :] = math.nan
        return logits

    model = build("qwen2")
    broken = Broken(model, spoil)
    assert score(broken, text, batch_size=2).nats == pytest.approx(score(model, text).nats)


@pytest.mark.parametrize("family", ENCODERS)
def test_an_encoder_has_no_perplexity(family: str, tokenizer: Any, documents: list[str]) -> None:
    model = build(family)
    with refused_naming(type(model).__name__):
        score(model, prepare(documents, tokenizer, CONTEXT))


def test_a_model_without_a_head_has_no_perplexity(tokenizer: Any, documents: list[str]) -> None:
    text = prepare(documents, tokenizer, CONTEXT)
    with refused_naming("Qwen2Model"):
        score(build("qwen2").model, text)


def test_tokens_that_the_model_does_not_know_are_refused(tokenizer: Any) -> None:
    model = build("qwen2")
    model.resize_token_embeddings(100)
    text = prepare([make_text(100)], tokenizer, CONTEXT)
    with refused_naming("token 3", "100"):
        score(model, text)


def test_windows_longer_than_the_model_takes_are_refused(tokenizer: Any) -> None:
    text = prepare([make_text(300)], tokenizer, 128)
    with refused_naming("128 tokens", "64"):
        score(build("qwen2"), text)
    with refused("batch_size", 0):
        score(build("qwen2"), text, batch_size=0)


def test_a_full_memory_is_one_line(
    model: Any, tokenizer: Any, documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = prepare(documents, tokenizer, CONTEXT)

    def full(*args: Any, **options: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 1 TB")

    monkeypatch.setattr(perplexity, "_score_batch", full)
    with refused_naming("memory", "batch_size=1"):
        score(model, text)


@pytest.mark.parametrize(
    ("setting", "value", "others"),
    [
        ("protocol", "sliding", {}),
        ("protocol", "gptq-2048", {}),
        ("stride", 4, {}),
        ("stride", 0, {"protocol": "stride"}),
        ("stride", 17, {"protocol": "stride"}),
        ("max_windows", 0, {}),
        ("max_windows", 3, {"protocol": "lm-eval-word"}),
        ("detokenize", True, {}),
    ],
)
def test_what_can_not_be_is_one_line(
    tokenizer: Any, setting: str, value: Any, others: dict[str, Any]
) -> None:
    with refused(setting, value):
        prepare([make_text(100)], tokenizer, CONTEXT, **{setting: value, **others})


def test_text_shorter_than_a_window_is_refused_with_both_numbers(tokenizer: Any) -> None:
    n = len(plain_ids(tokenizer, "ka lo")) + 1
    for protocol in ("windows", "stride"):
        with refused_naming("'texts'", f"{n} tokens", 16):
            prepare(["ka lo"], tokenizer, CONTEXT, protocol)
    with refused_naming("'texts'", f"{n} tokens", "2,048"):
        prepare(["ka lo"], tokenizer, None, "gptq-2048")
    assert prepare(["ka lo"], tokenizer, n, "windows").n_windows == 1


def test_no_text_is_refused(tokenizer: Any, bare: Any) -> None:
    with refused_naming("'texts'", "empty"):
        prepare([], tokenizer, CONTEXT)
    with refused_naming("'nowhere'", "hf:NAME"):
        prepare("nowhere", tokenizer, CONTEXT)
    with refused_naming("'texts'", "token"):
        prepare([make_text(9)], bare, 1)
    unmarked = PreTrainedTokenizerFast(tokenizer_object=bare.backend_tokenizer)
    with refused("protocol", "lm-eval-word", "protocol='windows'"):
        prepare(["ka lo"], unmarked, CONTEXT, "lm-eval-word")


def test_conversations_are_written_by_the_chat_template(tokenizer: Any) -> None:
    conversation = [{"role": "user", "content": "ka lo"}, {"role": "assistant", "content": "mi"}]
    with refused_naming("chat template"):
        prepare([conversation], tokenizer, 4)
    chatty = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, eos_token="<|endoftext|>"
    )
    chatty.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    text = prepare([conversation], chatty, 4)
    assert chatty.decode(text.ids[:-1]) == "user: ka lo\nassistant: mi\n"
    assert set(text.document_hashes) == {hash_document(conversation)}


def test_a_file_goes_by_its_name(tokenizer: Any, text_file: Path) -> None:
    text = prepare(str(text_file), tokenizer, CONTEXT)
    assert text.source == "made-up.txt"
    assert str(text_file.parent) not in text.description
    names = ("16 tokens", "<|endoftext|>", f"{text.n_windows:,} windows", "made-up.txt")
    assert lacking(text.description, *names) == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_says_what_it_is(tokenizer: Any, protocol: str) -> None:
    text = prepare([make_text(3000)], tokenizer, 2048, protocol)
    assert text.protocol == protocol
    assert "of texts" in text.description
    assert "\n" not in text.description


def test_shared_documents_are_found(tokenizer: Any, documents: list[str]) -> None:
    text = prepare(documents, tokenizer, CONTEXT)
    other = hash_documents([make_text(90, seed=77)])
    check_disjoint(other, text.document_hashes)
    shared = hash_documents([make_text(90, seed=77), documents[0]])
    with refused_naming("'a'", "'b'", "1 document of 3"):
        check_disjoint(shared, text.document_hashes, "a", "b")
    assert text.n_documents == 3


def test_short_documents_recur_by_chance_and_do_not_tell(tokenizer: Any) -> None:
    long = make_text(900)
    text = prepare(["import unittest", long], tokenizer, CONTEXT)
    assert text.document_hashes[hash_document(long)] == len(long.encode())
    check_disjoint(hash_documents(["import unittest"]), text.document_hashes)
    # Many of them do: rows of sentences, say, beside one long one.
    sentences = [f"ka lo mi {k}" for k in range(200)]
    short = prepare([*sentences, long], tokenizer, 4)
    check_disjoint(hash_documents(sentences[:2]), short.document_hashes)
    with refused_naming("100 documents of 201"):
        check_disjoint(hash_documents(sentences[:100]), short.document_hashes)


def test_the_library_s_two_splits_are_disjoint(tokenizer: Any) -> None:
    heldout = prepare("stdlib:heldout", tokenizer, CONTEXT).document_hashes
    assert len(heldout) > 20
    train, same = (hash_documents(read_documents(f"stdlib:{s}")) for s in ("train", "heldout"))
    check_disjoint(train, heldout, "stdlib:train", "stdlib:heldout")
    with refused_naming(f"{len(heldout)} documents of {len(heldout)}"):
        check_disjoint(same, heldout)


def test_the_context_is_what_model_and_tokenizer_take(tokenizer: Any) -> None:
    assert find_context(build("qwen2"), tokenizer) == 64
    assert find_context(build("gpt2"), tokenizer) == 64
    assert find_context(build("bloom"), tokenizer) is None
    short = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer, model_max_length=32
    )
    assert find_context(build("qwen2"), short) == 32


def test_the_bundled_model_predicts_its_held_out_text() -> None:
    """The card's figure over all of it is 0.871."""
    loaded = load_model(device="cpu", with_head=True)
    text = prepare(
        "stdlib:heldout",
        loaded.tokenizer,
        find_context(loaded.model, loaded.tokenizer),
        max_windows=16,
    )
    assert isinstance(text, EvaluationText)
    bits = score(loaded.model, text).bits_per_byte
    assert bits is not None
    assert 0.7 < bits < 1.1
