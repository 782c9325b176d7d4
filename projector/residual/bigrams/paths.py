"""Both zero-layer paths of a model, scored against a corpus.

Two paths lead from a token to the next token's logits without attention (Elhage et al. 2021, "A
mathematical framework for transformer circuits"):

- the *direct path* W_U W_E: the token's embedding goes through the final norm and the head;
- the *attention-free path*: the embedding goes through the MLPs of all blocks too, as if attention
  had written nothing.

Memory is bounded: logits are computed for a few tokens at a time, not for the whole vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from projector.corpus.batches import Corpus
from projector.corpus.pieces import Pieces
from projector.progress import Progress, Silent
from projector.residual.bigrams.alone import positions, run_alone
from projector.residual.bigrams.counts import Bigrams
from projector.residual.bigrams.scores import (
    PathScore,
    Prediction,
    count_scores,
    path_score,
    predict,
)
from projector.residual.bigrams.symmetry import measure_symmetry

if TYPE_CHECKING:
    from projector.residual.subject import Subject

DIRECT, ATTENTION_FREE = "direct", "attention-free"
N_SHUFFLES, N_EXAMPLES = 10, 12
# Logits held at once: of float32, 32 MB.
_LOGITS_AT_ONCE = 2**23
_TOKENS_AT_ONCE = 256
_LEFT_OUT = (
    "The model adds a positional embedding to each token's. Both paths leave it out, because a "
    "token alone has no position."
)
# Tokens whose logits for one another are compared, to see how symmetric the direct path is.
_N_COMPARED = 256


@dataclass(frozen=True)
class Guess:
    """The most probable next token of a path."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class Example:
    """A frequent token with its most frequent and predicted next tokens.

    Attributes:
        follows: the most frequent next token in the corpus, with count ``n_follows`` of ``n``.
        guesses: path → its guesses.
    """

    token: int
    text: str
    n: int
    follows: int
    follows_text: str
    n_follows: int
    guesses: dict[str, Guess]


@dataclass(frozen=True)
class AloneToken:
    """A token of a prompt, and the predictions of each path; see :class:`Example`."""

    position: int
    token: int
    text: str
    guesses: dict[str, Guess]


@dataclass(frozen=True)
class ZeroLayer:
    """Zero-layer paths scored against a corpus.

    Attributes:
        n_bigrams: number of bigrams, with repetitions.
        n_first: number of distinct first tokens.
        entropy: H(b | a) of the corpus, in nats per token.
        tied, asymmetry, symmetric, broken_by: symmetry of the direct path's logits; see
            :class:`~projector.residual.bigrams.symmetry.Symmetry`.
        asymmetry_shuffled: the asymmetry with shuffled rows of the head.
        itself: path → the share of bigrams where it predicts the first token to be repeated.
        positions: how positional embeddings were treated; "" if the model has none.
        paths: see :class:`PathScore`.
        examples: see :class:`Example`; most frequent first.
    """

    n_bigrams: int
    n_first: int
    n_shuffles: int
    entropy: float
    tied: bool
    asymmetry: float
    asymmetry_shuffled: float
    symmetric: bool
    broken_by: dict[str, float]
    itself: dict[str, float]
    positions: str
    paths: tuple[PathScore, ...]
    examples: tuple[Example, ...]

    def path(self, name: str) -> PathScore:
        """The scores of one path."""
        return next(each for each in self.paths if each.name == name)

    def as_dict(self) -> dict[str, Any]:
        """Convert to JSON values."""
        return asdict(self)


def score_zero_layer(
    subject: Subject,
    corpus: Corpus,
    *,
    n_shuffles: int = N_SHUFFLES,
    n_examples: int = N_EXAMPLES,
    seed: int = 0,
    progress: Progress | None = None,
) -> ZeroLayer:
    """Score both zero-layer paths against a corpus's bigrams.

    This costs one run of the model on single-token sequences, and two products with the head for
    each distinct token of the corpus.

    Args:
        n_shuffles: number of shuffles of the second tokens for the control; at least 1.
        n_examples: number of the most frequent first tokens to show.

    Raises:
        UserError: if the model has no head for the next token, or the corpus has no bigrams.
    """
    # An error tells of it before anything is run.
    _ = subject.readout
    progress = progress or Silent()
    real = Bigrams.of_corpus(corpus)
    generator = np.random.default_rng(seed)
    targets = [real, *(real.shuffled(generator) for _ in range(n_shuffles))]
    streams = _streams_of(subject, real.first, progress)
    found = _predictions(subject, targets, streams, progress)
    scores = [
        path_score(name, targets, each.top, each.log_probabilities) for name, each in found.items()
    ]
    compared = generator.permutation(len(real.first))[:_N_COMPARED]
    symmetry = measure_symmetry(
        subject, torch.from_numpy(real.first[compared]), streams[0][compared]
    )
    return ZeroLayer(
        n_bigrams=real.n,
        n_first=len(real.first),
        n_shuffles=n_shuffles,
        entropy=real.entropy,
        tied=symmetry.tied,
        asymmetry=symmetry.asymmetry,
        asymmetry_shuffled=symmetry.shuffled,
        symmetric=symmetry.symmetric,
        broken_by=symmetry.broken_by,
        itself={
            name: float(real.first_counts[each.top == real.first].sum() / real.n)
            for name, each in found.items()
        },
        positions=_position_words(subject),
        paths=(*scores, *count_scores(targets)),
        examples=_examples(subject, real, found, n_examples),
    )


def _position_words(subject: Subject) -> str:
    reason = subject.layout.embedding.reason
    if reason is not None:
        return f"Each token is at the first position: {reason}."
    return _LEFT_OUT if positions(subject) else ""


def _predictions(
    subject: Subject,
    targets: Sequence[Bigrams],
    streams: tuple[Tensor, Tensor],
    progress: Progress,
) -> dict[str, Prediction]:
    """What both paths predict behind each first token of the targets."""
    readout = subject.readout
    n_rows = max(1, _LOGITS_AT_ONCE // readout.n_vocabulary)
    found: dict[str, Prediction] = {}
    for name, stream in zip((DIRECT, ATTENTION_FREE), streams, strict=True):
        progress.begin(f"Scoring the {name} path", len(stream), "tokens")

        def logits(rows: np.ndarray, stream: Tensor = stream) -> Tensor:
            with torch.no_grad():
                return readout.logits(stream[torch.from_numpy(rows).to(stream.device)])

        found[name] = predict(logits, targets, n_rows, progress.advance)
    progress.end()
    return found


def _streams_of(subject: Subject, ids: np.ndarray, progress: Progress) -> tuple[Tensor, Tensor]:
    """The streams that the direct and the attention-free path end in, (F, H) each."""
    progress.begin("Running the MLPs alone", len(ids), "tokens")
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for chunk in torch.from_numpy(ids).split(_TOKENS_AT_ONCE):
        for into, stream in zip(found, run_alone(subject, chunk), strict=True):
            into.append(stream)
        progress.advance(len(chunk))
    return torch.cat(found[0]), torch.cat(found[1])


def _examples(
    subject: Subject, bigrams: Bigrams, found: dict[str, Prediction], n_examples: int
) -> tuple[Example, ...]:
    most, totals = bigrams.most_frequent_next, bigrams.first_counts
    largest = np.maximum.reduceat(bigrams.counts, bigrams.starts[:-1])
    # Of equally frequent ones, the lowest id first.
    order = np.argsort(-totals, kind="stable")[:n_examples]
    tops = [each.top[order] for each in found.values()]
    pieces = subject.pieces(np.concatenate([bigrams.first[order], most[order], *tops]).tolist())
    return tuple(
        Example(
            token=int(bigrams.first[i]),
            text=pieces.text(int(bigrams.first[i])),
            n=int(totals[i]),
            follows=int(most[i]),
            follows_text=pieces.text(int(most[i])),
            n_follows=int(largest[i]),
            guesses=_guesses(found, int(i), pieces),
        )
        for i in order
    )


def _guesses(found: dict[str, Prediction], row: int, pieces: Pieces) -> dict[str, Guess]:
    return {
        name: Guess(
            int(each.top[row]),
            pieces.text(int(each.top[row])),
            math.exp(each.top_log_probability[row]),
        )
        for name, each in found.items()
    }


def predict_alone(subject: Subject, ids: Sequence[int]) -> tuple[AloneToken, ...]:
    """Predict the next token from each single token of a prompt, with each path.

    Raises:
        UserError: if the model has no head for the next token.
    """
    distinct, row_of = np.unique(np.asarray(ids, dtype=np.int64), return_inverse=True)
    # Only the top tokens are asked for: any pairs do.
    pairs = Bigrams.of_pairs(distinct, distinct)
    found = _predictions(subject, [pairs], _streams_of(subject, distinct, Silent()), Silent())
    tops = [each.top for each in found.values()]
    pieces = subject.pieces(np.concatenate([distinct, *tops]).tolist())
    texts = pieces.texts(list(ids))
    return tuple(
        AloneToken(position, int(token), texts[position], _guesses(found, int(row), pieces))
        for position, (token, row) in enumerate(zip(ids, row_of, strict=True))
    )
