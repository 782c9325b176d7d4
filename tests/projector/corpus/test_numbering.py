"""Where tokens are, against lists of them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from projector.corpus.batches import Corpus
from projector.corpus.numbering import KeptTokens, token_numbers


def corpus_of(lengths: list[int], skip_first: int) -> Corpus:
    starts = np.concatenate([[0], np.cumsum(lengths)])
    n_tokens = sum(max(0, n - skip_first) for n in lengths)
    ids = (np.arange(starts[-1]) * 7 % 50).astype(np.int32)
    return Corpus("made up", "", ids, starts, skip_first, n_tokens, n_tokens, 0, ())


CORPORA = [corpus_of([5, 1, 9, 2, 30, 1, 1, 12], skip) for skip in (0, 1, 2)]


@pytest.mark.parametrize("corpus", CORPORA)
def test_tokens_that_count_are_numbered(corpus: Corpus) -> None:
    bounds = itertools.pairwise(corpus.starts.tolist())
    expected = [t for a, b in bounds for t in range(a + corpus.skip_first, b)]
    assert token_numbers(corpus, torch.arange(corpus.n_tokens)).tolist() == expected
    assert token_numbers(corpus, torch.tensor([0, corpus.n_tokens - 1])).tolist() == [
        expected[0],
        expected[-1],
    ]


@pytest.mark.parametrize("corpus", CORPORA)
@pytest.mark.parametrize("shown", [[0], [60], [4, 5, 6], [3, 30, 31, 40, -1, 30], list(range(61))])
@pytest.mark.parametrize(("n_before", "n_after"), [(0, 0), (2, 1), (24, 8)])
def test_what_is_around_shown_tokens_is_kept(
    corpus: Corpus, shown: list[int], n_before: int, n_after: int
) -> None:
    sequence = {
        t: (a, b) for a, b in itertools.pairwise(corpus.starts.tolist()) for t in range(a, b)
    }
    around = {
        t: list(range(max(sequence[t][0], t - n_before), min(sequence[t][1], t + n_after + 1)))
        for t in shown
        if t >= 0
    }
    wanted = sorted({t for each in around.values() for t in each})
    kept = KeptTokens.around(corpus, torch.tensor(shown), n_before, n_after)
    assert kept.ids.tolist() == corpus.ids[wanted].tolist()
    moved = kept.moved(torch.tensor(shown)).tolist()
    assert moved == [wanted.index(t) if t >= 0 else -1 for t in shown]
    # No stretch holds tokens of two sequences, nor such as are not neighbours.
    starts = kept.starts.tolist()
    stretches = [wanted[a:b] for a, b in itertools.pairwise(starts)]
    for each in stretches:
        assert each == list(range(each[0], each[-1] + 1))
        assert len({sequence[t] for t in each}) == 1
    # And the context is whole.
    for t, place in zip(shown, moved, strict=True):
        if t >= 0:
            home = next(each for each in stretches if t in each)
            assert set(around[t]) <= set(home)
            assert wanted[place] == t


@pytest.mark.parametrize("corpus", CORPORA)
def test_all_may_be_kept(corpus: Corpus) -> None:
    kept = KeptTokens.whole(corpus)
    assert kept.ids.tolist() == corpus.ids.tolist()
    assert kept.starts.tolist() == corpus.starts.tolist()
    every = torch.arange(-1, len(corpus.ids))
    assert kept.moved(every).tolist() == every.tolist()
