"""Labels of groups, from the tokens that their neurons' strongest examples have in common."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from projector.corpus.pieces import Pieces
from projector.naming.labels import (
    MOST_BY_CHANCE,
    MOST_SIGNS,
    MOST_TOKENS,
    SHARE_OF_FEW,
    Extremes,
    Label,
    Naming,
    ended,
    strongest,
)
from projector.naming.words import (
    KINDS,
    NONE,
    Frequencies,
    kind_of,
    listed,
    shown,
    sign_and_name,
    word_of,
    words_of,
)
from projector.statistics.examples import Examples

# A neuron fires on a word where so many of its examples are on it; a group shares it where so many
# of its neurons do, and so much of the weight of its examples is on the words that it shares.
_LEAST_OF_NEURON, _LEAST_NEURONS, _LEAST_SHARE = 2, 2, 0.1
_AMONG_OTHERS, _AFTER = " …", "after “"


def group_label(
    examples: Examples,
    pieces: Pieces,
    neurons: Sequence[int],
    signs: Sequence[int] | None = None,
    sign: int | None = None,
) -> Label | None:
    """Compute the label of a group from the examples of all its members, with equal weights.

    If no word has most of the weight, the label lists the words that the members share: more
    members fire on such a word than in a random set of as many neurons from the map, and more of
    their examples are on it than in a random set of as many tokens from the corpus. Each happens by
    chance in less than 1 of 50 cases.

    Args:
        neurons: its members.
        signs: 1 or −1 for each member, if members are anticorrelated; None for the same sign for
            all.
        sign: 1 for the label of the highest activations, −1 for that of the lowest; None for the
            one with stronger examples over all members. Must be None if ``signs`` is given.

    Returns:
        The label; None if no member varies.
    """
    chosen = np.asarray(neurons, dtype=np.int64)
    if not len(chosen):
        return None
    on_map = _on_map(examples, pieces)
    strength = {each: on_map.extremes[each].strength[chosen] for each in (1, -1)}
    if signs is None:
        main = sign or (1 if strength[1].mean() >= strength[-1].mean() else -1)
        turned = np.full(len(chosen), main)
    else:
        # Members of both signs, turned so that most of the group keeps its own.
        turned = np.asarray(signs, dtype=np.int64)
        means = [
            np.where(sense * turned > 0, strength[1], strength[-1]).mean() for sense in (1, -1)
        ]
        turned = turned if means[0] >= means[1] else -turned
    return on_map.label(chosen, turned)


def members_on_label(
    examples: Examples, pieces: Pieces, neurons: Sequence[int], label: Label
) -> dict[int, int]:
    """Find the members of a group that fire on its label in at least two of their examples.

    Args:
        neurons: its members.
        label: the result of :func:`group_label` for the group.

    Returns:
        For each such member, in the order of ``neurons``, the index in the corpus of the strongest
        of these examples.
    """
    chosen = np.asarray(neurons, dtype=np.int64)
    if not len(chosen):
        return {}
    kind = next((each for each in KINDS if label.text.startswith(f"{each}: ")), None)
    named = [text for text, _ in label.tokens if shown(text) in label.text]
    wanted = {word_of(text) for text in named or [text for text, _ in label.tokens[:1]]}
    is_after = label.text.startswith(_AFTER)
    starts = set(examples.starts.tolist())
    ends = strongest(examples, None, chosen)

    def is_on_it(at: int) -> bool:
        # At the start of a sequence there is no token before.
        if at < 0 or (is_after and at in starts):
            return False
        text = pieces.text(int(examples.ids[at - is_after]))
        return kind_of(text) == kind if kind else word_of(text) in wanted

    found = {}
    for neuron, places, weights in zip(chosen.tolist(), ends.at, ends.weights, strict=True):
        on_it = [at for at in places[weights > 0].tolist() if is_on_it(at)]
        if len(on_it) >= _LEAST_OF_NEURON:
            found[neuron] = on_it[0]
    return found


class _OnMap:
    """What the neurons of a map fire on, for labels of its groups."""

    def __init__(self, examples: Examples, pieces: Pieces) -> None:
        self._words = words_of(pieces)
        self._naming = Naming(examples, self._words, takes_several=False)
        self._frequencies = self._words.frequencies(examples.ids)
        self.extremes: dict[int, Extremes] = {}
        # Of each sign: ids of the tokens of its examples, (N, k), and of those before.
        self._ids: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        ids = examples.ids.numpy()
        for sign in (1, -1):
            found = strongest(examples, sign)
            at = np.where(found.weights > 0, found.at, NONE)
            is_first = torch.isin(torch.from_numpy(at), examples.starts).numpy()
            self.extremes[sign] = found
            self._ids[sign] = (
                np.where(at >= 0, ids[at], NONE).astype(np.int64),
                np.where((at > 0) & ~is_first, ids[at - 1], NONE).astype(np.int64),
            )
        # Of the tokens and of those before: the share of all neurons that fire on each word.
        self._usual = [
            {sign: self._n_firing(self._numbers(sign, k)) / len(at) for sign in (1, -1)}
            for k in (0, 1)
        ]

    def _numbers(self, sign: int, which: int) -> NDArray[np.int64]:
        return self._words.numbers(self._ids[sign][which])

    @staticmethod
    def _n_firing(numbers: NDArray[np.int64], n_words: int = 0) -> NDArray[np.float64]:
        """How many rows have each word in enough of their examples, (W,)."""
        n_words = max(n_words, int(numbers.max(initial=0)) + 1)
        pairs = (np.arange(len(numbers))[:, None] * n_words + numbers)[numbers >= 0]
        unique, counts = np.unique(pairs, return_counts=True)
        firing = unique[counts >= _LEAST_OF_NEURON] % n_words
        return np.bincount(firing, minlength=n_words).astype(np.float64)

    def label(self, chosen: NDArray[np.int64], signs: NDArray[np.int64]) -> Label | None:
        """Label neurons by their highest examples, or their lowest where the sign is negative."""
        up = signs[:, None] > 0
        ends = self.extremes[1], self.extremes[-1]
        at = np.where(up, ends[0].at[chosen], ends[1].at[chosen])
        weights = np.where(up, ends[0].weights[chosen], ends[1].weights[chosen])
        places, inverse = np.unique(at[weights > 0], return_inverse=True)
        if not len(places):
            return None
        sums = np.bincount(inverse, weights[weights > 0]) / len(chosen)
        order = np.argsort(-sums, kind="stable")
        sign = 1 if signs.sum() >= 0 else -1
        label = self._naming.labels(places[order][None], sums[order][None], [sign])[0]
        if label is None or not label.is_mixed or len(chosen) < _LEAST_NEURONS:
            return label
        return self._shared(chosen, signs, 0, sign) or self._shared(chosen, signs, 1, sign) or label

    def _shared(
        self, chosen: NDArray[np.int64], signs: NDArray[np.int64], which: int, sign: int
    ) -> Label | None:
        """The words that neurons share, of their tokens or of those before; None without any."""
        up = signs > 0
        ids, at, weights = (
            np.where(up[:, None], of_both[0][chosen], of_both[1][chosen])
            for of_both in (
                (self._ids[1][which], self._ids[-1][which]),
                (self.extremes[1].at, self.extremes[-1].at),
                (self.extremes[1].weights, self.extremes[-1].weights),
            )
        )
        numbers = self._words.numbers(ids)
        highest, lowest = (self._usual[which][each] for each in (1, -1))
        usual = np.zeros(max(len(highest), len(lowest)))
        usual[: len(highest)] += up.mean() * highest
        usual[: len(lowest)] += (1 - up.mean()) * lowest
        of_neurons = Frequencies(usual)
        n_firing = self._n_firing(numbers, len(usual))
        # Neurons that fire together do so at the same places: each counts once.
        _, first = np.unique(np.where(weights > 0, at, NONE), return_index=True)
        places = numbers.ravel()[first[at.ravel()[first] >= 0]]
        chances = {}
        for word in np.flatnonzero(n_firing >= _LEAST_NEURONS).tolist():
            n_of_it = int((places == word).sum())
            chances[word] = max(
                of_neurons.by_chance(word, int(n_firing[word]), len(chosen)),
                self._frequencies.by_chance(word, n_of_it, len(places)),
            )
        shared = [word for word, chance in chances.items() if chance <= MOST_BY_CHANCE]
        share = {word: float(weights[numbers == word].sum()) / len(chosen) for word in shared}
        told = []
        for word in shared:
            of_it = ids[numbers == word]
            spellings = np.bincount(of_it, weights[numbers == word])
            told.append((self._words.pieces.text(int(spellings.argmax())), share[word], word))
        told = sorted(told, key=lambda each: (-each[1], each[0]))[:MOST_TOKENS]
        if (whole := sum(weight for _, weight, _ in told)) < _LEAST_SHARE:
            return None
        texts = [sign_and_name(text) for text, *_ in told]
        text = listed(texts, MOST_SIGNS - len(_AMONG_OTHERS)) if which == 0 else ""
        text = text or f"{_AFTER}{shown(told[0][0], MOST_SIGNS - 10)}”"
        return Label(
            ended(text if whole >= SHARE_OF_FEW else f"{text}{_AMONG_OTHERS}", sign),
            tuple((text, weight) for text, weight, _ in told),
            sign,
            int(np.isin(places, [word for *_, word in told]).sum()),
            len(places),
            max(chances[word] for *_, word in told),
        )


@lru_cache(maxsize=4)
def _on_map(examples: Examples, pieces: Pieces) -> _OnMap:
    """Kept while a map's groups are looked at."""
    return _OnMap(examples, pieces)
