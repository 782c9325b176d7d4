"""How many examples fit beside statistics, and that they take what is reckoned."""

from __future__ import annotations

import numpy as np
import pytest

from projector.corpus.batches import Corpus
from projector.statistics.example_facts import N_EXTREMES, N_SAMPLE, what_fits
from tests.refused import lacking


def corpus_of(n_ids: int, n_distinct: int = 1000) -> Corpus:
    ids = (np.arange(n_ids) % n_distinct).astype(np.int32)
    starts = np.arange(0, n_ids + 1, 250)
    return Corpus("made up", "", ids, starts, 0, n_ids, n_ids, 0, ())


# As wide as two layers of a small model.
WIDTHS = {(i, site): n for i in range(2) for site, n in (("mlp_post", 768), ("attn_out", 192))}
STATISTICS = sum(6 * n * n for n in WIDTHS.values())


def test_nothing_is_cut_where_there_is_room() -> None:
    corpus = corpus_of(60_000)
    facts = what_fits(WIDTHS, corpus, STATISTICS)
    assert (facts.n_extremes, facts.n_sample, facts.n_context) == (10, 1024, 32)
    assert facts.is_whole
    assert facts.cut == ()
    assert facts.source == "made up"
    assert facts.kept_bytes(WIDTHS, corpus) <= STATISTICS


def test_of_a_large_corpus_the_tokens_around_those_shown_are_kept() -> None:
    corpus = corpus_of(10**7)
    facts = what_fits(WIDTHS, corpus, 10 * STATISTICS)
    assert not facts.is_whole
    assert facts.cut == ()
    n_shown = 20 * sum(WIDTHS.values()) + 1024
    assert facts.kept_bytes(WIDTHS, corpus) < 10 * STATISTICS
    assert facts.kept_bytes(WIDTHS, corpus) > 4 * n_shown * 33


def test_the_sample_is_cut_first_and_it_is_said() -> None:
    corpus, allowed = corpus_of(60_000), STATISTICS // 2
    facts = what_fits(WIDTHS, corpus, allowed)
    assert 64 < facts.n_sample < N_SAMPLE
    assert (facts.n_extremes, facts.n_context) == (N_EXTREMES, 32)
    (cut,) = facts.cut
    assert lacking(cut, f"{facts.n_sample} tokens", "1,024") == []
    assert 0.95 * allowed < facts.kept_bytes(WIDTHS, corpus) <= allowed


@pytest.mark.parametrize("n_neurons", [100, 200, 400, 768])
@pytest.mark.parametrize("n_ids", [1000, 60_000, 10**6])
def test_of_any_one_map_they_take_no_more_than_statistics(n_neurons: int, n_ids: int) -> None:
    corpus, widths = corpus_of(n_ids), {(0, "attn_out"): n_neurons}
    allowed = 6 * n_neurons**2
    facts = what_fits(widths, corpus, allowed)
    # Files as small as this are left.
    assert facts.kept_bytes(widths, corpus) <= max(allowed, 256 << 10)
    assert facts.n_extremes >= 1
    wanted = {"n_sample": 1024, "n_context": 32, "n_extremes": 10}
    n_cut = sum(getattr(facts, name) < most for name, most in wanted.items())
    assert len(facts.cut) == n_cut - (n_ids < 1024 and facts.n_sample == n_ids)


def test_of_a_short_corpus_every_token_is_in_the_sample() -> None:
    facts = what_fits(WIDTHS, corpus_of(500), STATISTICS)
    assert facts.n_sample == 500
    assert facts.cut == ()
