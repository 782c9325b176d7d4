"""Labels of neurons and groups, from the tokens of their strongest examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import betainc

from projector.corpus.pieces import Pieces
from projector.naming.words import (
    NONE,
    Words,
    listed,
    on_one_line,
    shown,
    sign_and_name,
    words_of,
)
from projector.statistics.examples import Examples

MOST_SIGNS = 24
# Of the weight of a neuron's examples: what a token has that the label is, and one beside it.
_SHARE, _SHARE_BESIDE, SHARE_OF_FEW, _SHARE_OF_KIND = 0.5, 0.2, 0.7, 0.8
# A kind of token is told only where less than this of the corpus is of it.
_MOST_OF_KIND = 0.25
# Agreement that random tokens reach more often than this is none.
MOST_BY_CHANCE = 0.02
MOST_TOKENS = 5
_MIXED, LOWEST = " (mixed)", " ↓"
# Of the rules by which labels are made: labels that a file keeps of another are made again.
RULES = 2


@dataclass(frozen=True)
class Label:
    """The label of a neuron or a group, computed from its strongest examples.

    Attributes:
        text: short, with visible characters only: ``self``, ``after “.”``, ``a · b · c (mixed)``,
            and for a group ``of · to …``; followed by ``↓`` if it describes the lowest activations.
        tokens: tokens of the examples and their share of the weight, the largest first, at most
            five; for ``after …``, the previous tokens. The most frequent spelling is given, with
            its spaces.
        sign: 1 for the highest activations, −1 for the lowest.
        n_agreeing: number of examples with the first of ``tokens``; for a kind such as
            ``CAPITALS``, number of examples of this kind.
        n_examples: number of examples; for a group, positions in the corpus, each counted once.
        by_chance: probability that as many random tokens of the corpus agree as often on a word
            that is at most as frequent.
        is_mixed: whether the examples agree on no token more than by chance.
    """

    text: str
    tokens: tuple[tuple[str, float], ...]
    sign: int
    n_agreeing: int
    n_examples: int
    by_chance: float = 1.0
    is_mixed: bool = False

    @property
    def in_words(self) -> str:
        """The evidence for the label, compared with chance, as a help text."""
        end = "highest" if self.sign > 0 else "lowest"
        sets = f"1 in {round(1 / self.by_chance):,}" if self.by_chance else "fewer than 1 in 1,000"
        if self.by_chance > 0.5:
            sets = "most"
        return (
            f"{self.n_agreeing} of {self.n_examples} {end} examples agree; so do {sets} random "
            "sets of as many tokens"
        )


@dataclass(frozen=True, eq=False)
class Extremes:
    """The strongest examples of N neurons, for the sign with stronger examples.

    Attributes:
        at: (N, k) int64, indices of tokens in the corpus; −1 for missing examples.
        weights: (N, k) float64, how far each exceeds the neuron's usual activation, as a share of
            the sum over its examples; zeros if none exceeds it.
        strength: (N,) float64, mean distance from the usual activation in units of the neuron's
            spread.
        signs: (N,) int64, 1 for the highest and −1 for the lowest.
    """

    at: NDArray[np.int64]
    weights: NDArray[np.float64]
    strength: NDArray[np.float64]
    signs: NDArray[np.int64]


def neuron_labels(
    examples: Examples,
    pieces: Pieces,
    sign: int | None = None,
    neurons: NDArray[np.int64] | None = None,
) -> tuple[Label | None, ...]:
    """Compute the label of every neuron, in order; None for a neuron that never varies.

    The weight of an example is its distance from the neuron's usual activation, the mean over
    evenly drawn tokens. The sign is the one with examples farther away, in units of the neuron's
    spread. If one token has half the weight, or two or three have most of it, they are the label;
    otherwise the previous token is tried, and kinds of tokens such as ``CAPITALS``.

    Args:
        sign: 1 for labels of the highest activations, −1 for the lowest; None for the stronger
            ones.
        neurons: indices of the neurons; None for all.
    """
    extremes = strongest(examples, sign, neurons)
    return Naming(examples, words_of(pieces)).labels(
        extremes.at, extremes.weights, extremes.signs.tolist()
    )


def snippets(examples: Examples, pieces: Pieces, n_before: int, n_after: int) -> list[str]:
    """Each neuron's strongest example as one line of text, with its token in «»; "" if it has none.

    Args:
        n_before, n_after: largest number of tokens of the same sequence shown before and after it.
    """
    found = []
    for at in strongest(examples).at[:, 0].tolist():
        found.append("" if at < 0 else snippet(examples, pieces, at, n_before, n_after))
    return found


def snippet(examples: Examples, pieces: Pieces, at: int, n_before: int, n_after: int) -> str:
    """The text around a token of the corpus as one line, with the token in «»; see
    :func:`snippets`.
    """
    ids, focus = examples.context(at, n_before, n_after)
    return on_one_line(pieces.texts(ids), focus)


def strongest(
    examples: Examples, sign: int | None = None, neurons: NDArray[np.int64] | None = None
) -> Extremes:
    """The strongest examples of neurons, and how far they exceed usual activations.

    Args:
        sign: 1 for the highest, −1 for the lowest; None for each neuron's stronger side.
        neurons: indices of the neurons; None for all.
    """
    rows = slice(None) if neurons is None else neurons
    usual, spread = _usual(examples, rows)
    ends = []
    for each in (1, -1) if sign is None else (sign,):
        values = (examples.highest if each > 0 else examples.lowest).numpy()[rows]
        at = (examples.highest_at if each > 0 else examples.lowest_at).numpy()[rows]
        beyond = each * (values.astype(np.float64) - usual[:, None])
        known = (at >= 0) & np.isfinite(beyond) & (beyond > 0)
        beyond = np.where(known, beyond, 0.0)
        sums = beyond.sum(axis=1, keepdims=True)
        weights = np.divide(beyond, sums, out=np.zeros_like(beyond), where=sums > 0)
        n_known = np.maximum(known.sum(axis=1), 1)
        # A spread of nothing over the sample, and examples beyond it: rarer than the sample shows.
        least = np.maximum(spread, 1e-6 * np.abs(usual) + 1e-12)
        strength = sums[:, 0] / n_known / least
        ends.append(Extremes(at, weights, strength, np.full(len(at), each)))
    if len(ends) == 1:
        return ends[0]
    up = ends[0].strength >= ends[1].strength
    return Extremes(
        np.where(up[:, None], ends[0].at, ends[1].at),
        np.where(up[:, None], ends[0].weights, ends[1].weights),
        np.where(up, ends[0].strength, ends[1].strength),
        np.where(up, 1, -1),
    )


def _usual(
    examples: Examples, rows: slice | NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of neurons over the tokens drawn evenly, (N,) each."""
    sample = examples.sample[:, rows].float()
    if sample.isfinite().all():
        variance, mean = torch.var_mean(sample, dim=0, correction=0)
    else:
        finite = sample.isfinite()
        n_finite = finite.sum(dim=0).clamp_min(1)
        mean = torch.where(finite, sample, 0.0).sum(dim=0) / n_finite
        variance = torch.where(finite, sample - mean, 0.0).square().sum(dim=0) / n_finite
    return mean.double().numpy(), variance.double().sqrt().numpy()


def ended(text: str, sign: int) -> str:
    """Mark a label's text if it describes the lowest activations, because the two ends of an axis
    fire on the same tokens, one with its highest and one with its lowest activations.
    """
    return text if sign > 0 else f"{text}{LOWEST}"


class Naming:
    """Labels over one corpus.

    Args:
        takes_several: whether two or three words with most of the weight make a label. In a group,
            these may be words of single members.
    """

    def __init__(self, examples: Examples, words: Words, *, takes_several: bool = True) -> None:
        self._takes_several = takes_several
        self._corpus = examples.ids
        self._starts = examples.starts
        self._words = words
        self._frequencies = words.frequencies(examples.ids)
        self._kind_shares: NDArray[np.float64] | None = None

    def labels(
        self, at: NDArray[np.int64], weights: NDArray[np.float64], signs: Sequence[int]
    ) -> tuple[Label | None, ...]:
        """Compute labels for examples at tokens of the corpus, one label per row; (R, k) each, and
        (R,).

        Args:
            weights: 0 for missing examples; each row sums to 1.
        """
        # Words of all at once: each token is looked at once.
        at = np.where(weights > 0, at, NONE)
        ids = self._corpus.numpy()
        here = np.where(at >= 0, ids[at], NONE).astype(np.int64)
        starts = torch.isin(torch.from_numpy(at), self._starts).numpy()
        before = np.where((at > 0) & ~starts, ids[at - 1], NONE).astype(np.int64)
        numbers, numbers_before = self._words.numbers(here), self._words.numbers(before)
        rows = (here, numbers, before, numbers_before, self._words.kinds(here), weights)
        return tuple(self._label(*row, sign=sign) for *row, sign in zip(*rows, signs, strict=True))

    def _label(
        self,
        ids: NDArray[np.int64],
        numbers: NDArray[np.int64],
        before_ids: NDArray[np.int64],
        before_numbers: NDArray[np.int64],
        kinds: NDArray[np.int64],
        weights: NDArray[np.float64],
        *,
        sign: int,
    ) -> Label | None:
        here = _Agreement.of(ids, numbers, weights)
        n = here.n_examples
        if not n:
            return None
        by_chance = self._frequencies.by_chance
        chance = by_chance(here.first, here.n_agreeing, n)
        tokens = self._tokens(here)
        few = [(text, share) for text, share in tokens if share >= _SHARE_BESIDE]
        has_most = self._takes_several and sum(share for _, share in few) >= SHARE_OF_FEW
        agrees = here.share >= _SHARE or has_most
        if agrees and chance <= MOST_BY_CHANCE:
            text = listed([sign_and_name(text) for text, _ in few or tokens[:1]], MOST_SIGNS)
            return Label(ended(text, sign), tokens, sign, here.n_agreeing, n, chance)
        before = _Agreement.of(before_ids, before_numbers, weights)
        if before.share >= _SHARE and before.share > here.share:
            chance_before = by_chance(before.first, before.n_agreeing, n)
            if chance_before <= MOST_BY_CHANCE:
                tokens = self._tokens(before)
                text = ended(f"after “{shown(tokens[0][0], MOST_SIGNS - 8)}”", sign)
                return Label(text, tokens, sign, before.n_agreeing, n, chance_before)
        texts = list(dict.fromkeys(shown(text, MOST_SIGNS // 3) for text, _ in tokens))
        kind = _Agreement.of(ids, kinds, weights)
        if kind.share >= _SHARE_OF_KIND:
            usual = self._kind_share(kind.first)
            chance_kind = float(betainc(kind.n_agreeing, n - kind.n_agreeing + 1, usual))
            if usual <= _MOST_OF_KIND and chance_kind <= MOST_BY_CHANCE:
                text = listed(texts, MOST_SIGNS, f"{self._words.kind_name(kind.first)}: ")
                text = ended(text, sign)
                return Label(text, tokens, sign, kind.n_agreeing, n, chance_kind)
        text = ended(f"{listed(texts, MOST_SIGNS - len(_MIXED))}{_MIXED}", sign)
        return Label(text, tokens, sign, here.n_agreeing, n, chance, is_mixed=True)

    def _tokens(self, agreement: _Agreement) -> tuple[tuple[str, float], ...]:
        """The words of most weight in their most frequent spelling, and their shares."""
        return tuple(
            (self._words.pieces.text(agreement.spelling(number)), share)
            for number, share in agreement.ranked[:MOST_TOKENS]
        )

    def _kind_share(self, kind: int) -> float:
        """The share of the corpus' tokens that are of a kind."""
        if self._kind_shares is None:
            ids = self._corpus.numpy()
            evenly = np.linspace(0, len(ids) - 1, min(len(ids), 4096)).astype("int64")
            kinds = self._words.kinds(ids[evenly].astype(np.int64))
            self._kind_shares = np.bincount(kinds[kinds >= 0], minlength=3) / len(kinds)
        return float(self._kind_shares[kind])


@dataclass(frozen=True)
class _Agreement:
    """How far examples agree.

    Attributes:
        ranked: numbers of words and their weight, the greatest first.
        n_agreeing: examples of the first.
        n_examples: of all.
        spellings: word's number → token id → weight.
    """

    ranked: list[tuple[int, float]]
    n_agreeing: int
    n_examples: int
    spellings: dict[int, dict[int, float]]

    @classmethod
    def of(
        cls, ids: NDArray[np.int64], numbers: NDArray[np.int64], weights: NDArray[np.float64]
    ) -> _Agreement:
        spellings: dict[int, dict[int, float]] = {}
        counts: dict[int, int] = {}
        n = 0
        for i, number, weight in zip(ids.tolist(), numbers.tolist(), weights.tolist(), strict=True):
            if weight <= 0:
                continue
            n += 1
            if number != NONE:
                of_it = spellings.setdefault(number, {})
                of_it[i] = of_it.get(i, 0.0) + weight
                counts[number] = counts.get(number, 0) + 1
        sums = ((number, sum(of_it.values())) for number, of_it in spellings.items())
        # Of equals the one with the stronger example, which came first.
        ranked = sorted(sums, key=lambda item: -item[1])
        return cls(ranked, counts[ranked[0][0]] if ranked else 0, n, spellings)

    @property
    def first(self) -> int:
        return self.ranked[0][0] if self.ranked else NONE

    @property
    def share(self) -> float:
        return self.ranked[0][1] if self.ranked else 0.0

    def spelling(self, number: int) -> int:
        """The token id of a word that has the most weight; of equals the first."""
        of_it = self.spellings[number]
        return max(of_it, key=lambda i: of_it[i])
