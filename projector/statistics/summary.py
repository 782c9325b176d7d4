"""A summary of one map, in the same form for sums and for a sample of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from projector.statistics.correlations import Correlation, Matrix, MatrixFree, Sampled
from projector.statistics.gathering import Halves
from projector.statistics.halves import HALVES, packed_halves
from projector.statistics.organisation import (
    Organisation,
    independent_tokens,
    measure_organisation,
)
from projector.statistics.sampling import SamplingError, TokenSample, sampling_error, standardize


@dataclass(frozen=True)
class Summary:
    """Correlations of one map, and counts of tokens and undefined neurons.

    Attributes:
        whole: correlations over the corpus.
        halves: correlations over its first and its second half.
        n_tokens: number of tokens in the correlations.
        dead: neurons without variance, ascending; for per-sequence correlations, without variance
            within any sequence.
        nonfinite: neuron → how often it was NaN or infinite, for neurons that have no correlations
            for this reason.
        n_left_out: number of tokens left out because every neuron was NaN or infinite.
        n_sequences: number of sequences in the mean of correlations; None if correlations are over
            tokens.
        sampling: the sampling error of the correlations; None if all tokens were used.
    """

    whole: Correlation
    halves: tuple[Correlation, Correlation]
    n_tokens: int
    dead: tuple[int, ...]
    nonfinite: dict[int, int]
    n_left_out: int
    n_sequences: int | None = None
    sampling: SamplingError | None = None

    @property
    def n_neurons(self) -> int:
        """Number of neurons, N."""
        return len(self.whole.is_defined)

    def organisation(self) -> Organisation | None:
        """How organised the map is; None if no neuron has correlations."""
        n_tokens = independent_tokens(self.n_tokens, self.n_sequences)
        return measure_organisation(self.whole, n_tokens)


def summarize(gathered: Halves | TokenSample) -> Summary:
    """Summarise one map; ``gathered`` is not modified.

    Args:
        gathered: statistics of the two halves of the corpus; or a sample of its tokens.
    """
    if isinstance(gathered, TokenSample):
        return _of_sample(gathered)
    first, second = gathered
    merged = first.merged(second)
    whole, covariance = Matrix(merged.correlation()), merged.covariance
    is_broken = covariance.is_broken
    return Summary(
        whole=whole,
        halves=(Matrix(first.correlation()), Matrix(second.correlation())),
        n_tokens=covariance.n_tokens,
        dead=_indices(~whole.is_defined & ~is_broken),
        nonfinite={i: int(covariance.n_nonfinite[i]) for i in _indices(is_broken)},
        n_left_out=covariance.n_left_out,
        n_sequences=None if merged.by_sequence is None else merged.by_sequence.n_sequences,
    )


def _of_sample(sample: TokenSample) -> Summary:
    is_lost, n_nonfinite = sample.undefined()
    chosen = (torch.ones_like(is_lost), *sample.halves())
    whole, first, second = (_standardized(sample, each & ~is_lost) for each in chosen)
    return Summary(
        whole=whole,
        halves=(first, second),
        n_tokens=whole.sample.n_tokens,
        dead=_indices((~whole.is_defined).cpu() & (n_nonfinite == 0)),
        nonfinite={i: int(n_nonfinite[i]) for i in _indices(n_nonfinite)},
        n_left_out=int(is_lost.sum()),
        sampling=sampling_error(whole.sample, sample.n_corpus_tokens),
    )


def _standardized(sample: TokenSample, chosen: Tensor) -> Sampled:
    """Of these tokens, (T,) bool. In half precision: float32 would double what it takes."""
    rows, is_defined = standardize(sample.rows, torch.float16, chosen)
    return Sampled(MatrixFree(rows), is_defined)


def kept_statistics(name: str, gathered: Halves | TokenSample) -> dict[str, Tensor]:
    """The statistics of one map that a projection stores, by tensor name.

    Mean, covariance and per-sequence correlation are float32. The two halves' correlations are
    float16; see :func:`projector.statistics.halves.packed_halves`.

    For a sample, nothing is stored.
    """
    if isinstance(gathered, TokenSample):
        return {}
    first, second = gathered
    whole = first.merged(second)
    statistics = {
        f"{name}.mean": whole.covariance.mean.float().cpu(),
        f"{name}.covariance": whole.covariance.covariance(torch.float32).cpu(),
        f"{name}.{HALVES}": packed_halves(first.correlation(), second.correlation()).cpu(),
    }
    if whole.by_sequence is not None:
        statistics[f"{name}.correlation"] = whole.correlation().cpu()
    return statistics


def _indices(chosen: Tensor) -> tuple[int, ...]:
    """Of (N,): where it is true, or not 0; ascending."""
    return tuple(chosen.nonzero()[:, 0].tolist())
