"""All measurements of ``projector stream`` for a model on a prompt or a corpus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from projector.corpus.batches import Corpus
from projector.corpus.sources import read_documents
from projector.corpus.tokens import read_corpus
from projector.errors import UserError, check_text, named
from projector.model.context import choose_sequence_length, input_embedding
from projector.progress import Progress, Silent
from projector.residual.bigrams.paths import (
    N_SHUFFLES,
    AloneToken,
    ZeroLayer,
    predict_alone,
    score_zero_layer,
)
from projector.residual.flow.measuring import (
    N_DRAWS,
    batch_size_for,
    measure_flow,
    prompt_batch,
)
from projector.residual.flow.records import Flow
from projector.residual.settings import check_numbers
from projector.residual.subject import Subject

MAX_TOKENS = 20_000


@dataclass(frozen=True)
class Stream:
    """How a model's stream grows, and its predictions without attention.

    Attributes:
        model: its name.
        text: the prompt's tokens, in order; None for a corpus.
        corpus: the corpus's name; None for a prompt.
        corpus_sha256: hash of the corpus's documents.
        notes: remarks about parts of the corpus that were drawn or cut.
        zero_layer: zero-layer paths on a corpus; None for a prompt, or if ``zero_layer_reason`` is
            set.
        alone: for a prompt, the predictions from each single token; empty if there are none.
        zero_layer_reason: why the model has no zero-layer paths to logits; None if it has.
    """

    model: str
    text: tuple[str, ...] | None
    corpus: str | None
    corpus_sha256: str | None
    notes: tuple[str, ...]
    flow: Flow
    zero_layer: ZeroLayer | None
    alone: tuple[AloneToken, ...]
    zero_layer_reason: str | None

    @property
    def additivity_error(self) -> float:
        """The largest relative error of the sum of all parts; see :class:`Flow`."""
        return self.flow.additivity_error

    def as_dict(self) -> dict[str, Any]:
        """The output of ``--json``."""
        return asdict(self) | {"additivity_error": self.additivity_error}


def check_source(prompt: str | Sequence[int] | None, corpus: str | None) -> None:
    """Raise a UserError unless exactly one of prompt and corpus is given and can be opened."""
    if (prompt is None) == (corpus is None):
        both = f"{named('prompt')} or {named('corpus')}"
        problem = "no text is given" if prompt is None else "two texts are given"
        raise UserError(f"{problem}: give {both}, one of them", setting="prompt", value=prompt)
    check_text("prompt", prompt if isinstance(prompt, str) else None)
    if corpus is not None:
        # Files that are not there are told of before a model is loaded.
        read_documents(corpus)


def stream(
    model: Subject | str,
    *,
    prompt: str | Sequence[int] | None = None,
    corpus: str | None = None,
    chat: bool = False,
    max_tokens: int | None = MAX_TOKENS,
    sequence_length: int | None = None,
    keep_outliers: bool = False,
    n_shuffles: int = N_SHUFFLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Stream:
    """Measure how the stream grows on a prompt or a corpus, and its zero-layer paths.

    Args:
        model: a model's name, or a subject.
        prompt: a text, or token ids of the model; or
        corpus: see :func:`projector.corpus.sources.read_documents`.
        chat: apply the model's chat template to the prompt.
        max_tokens: largest number of tokens of the corpus to read; None for all.
        sequence_length: tokens per sequence of the corpus.
        keep_outliers: include tokens with an outlying norm in means.
        n_shuffles: number of shuffles of a corpus's second tokens, for the control.
        seed: seed of the shuffles and of all other random choices.
        progress: receives progress reports; None for none.

    Raises:
        UserError: for anything that isn't possible, such as a model with sums that don't close.
    """
    check_source(prompt, corpus)
    check_numbers(
        max_tokens=max_tokens, sequence_length=sequence_length, n_shuffles=n_shuffles, seed=seed
    )
    progress, subject = progress or Silent(), Subject.of(model)
    options: dict[str, Any] = {"leave_outliers_out": not keep_outliers, "seed": seed}
    if prompt is not None:
        return _of_prompt(subject, subject.ids_of(prompt, as_chat=chat), options)
    assert corpus is not None
    tokens = _read(subject, corpus, max_tokens, sequence_length, progress)
    longest = int((tokens.starts[1:] - tokens.starts[:-1]).max())
    batch_size = batch_size_for(subject, longest)
    progress.begin("Running the model", tokens.n_sequences, "sequences")

    def batches() -> Any:
        for batch in tokens.batches(batch_size):
            yield batch
            progress.advance(len(batch.keep))

    flow = measure_flow(subject, batches(), n_draws=N_DRAWS, **options)
    progress.end()
    zero_layer, reason = None, _why_no_logits(subject)
    if reason is None:
        zero_layer = score_zero_layer(
            subject, tokens, n_shuffles=n_shuffles, seed=seed, progress=progress
        )
    return Stream(
        model=subject.loaded.identifier,
        text=None,
        corpus=tokens.source,
        corpus_sha256=tokens.sha256,
        notes=tokens.notes,
        flow=flow,
        zero_layer=zero_layer,
        alone=(),
        zero_layer_reason=reason,
    )


def _of_prompt(subject: Subject, ids: list[int], options: dict[str, Any]) -> Stream:
    reason = _why_no_logits(subject)
    return Stream(
        model=subject.loaded.identifier,
        text=tuple(subject.pieces(ids).texts(ids)),
        corpus=None,
        corpus_sha256=None,
        notes=(),
        flow=measure_flow(subject, [prompt_batch(subject, ids)], **options),
        zero_layer=None,
        alone=() if reason is not None else predict_alone(subject, ids),
        zero_layer_reason=reason,
    )


def _why_no_logits(subject: Subject) -> str | None:
    try:
        _ = subject.readout
    except UserError as error:
        return str(error)
    return None


def _read(
    subject: Subject,
    source: str,
    max_tokens: int | None,
    sequence_length: int | None,
    progress: Progress,
) -> Corpus:
    """The tokens of a corpus.

    Raises:
        UserError: if it can't be read, or its tokens are none of this model's.
    """
    loaded = subject.loaded
    is_causal = subject.architecture.is_causal
    progress.begin("Reading the corpus", None, "documents")
    tokens = read_corpus(
        source,
        loaded.tokenizer,
        sequence_length=choose_sequence_length(loaded.model, loaded.tokenizer, sequence_length),
        max_tokens=max_tokens,
        skip_first=int(is_causal),
        packed=is_causal,
        advance=progress.advance,
    )
    progress.end()
    table: Any = input_embedding(loaded.model)
    if int(tokens.ids.max()) >= table.weight.shape[0]:
        raise UserError(
            f"the tokenizer gives token id {int(tokens.ids.max()):,}, but the model has "
            f"{table.weight.shape[0]:,} tokens: give the model's own tokenizer"
        )
    return tokens
