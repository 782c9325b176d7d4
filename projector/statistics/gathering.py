"""One pass of a model over a corpus: the statistics of every site, in two halves, and examples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch, Corpus
from projector.corpus.numbering import CountedTokens
from projector.model.capture import Tap, capture, evaluating, token_rows
from projector.model.loading import input_device, is_spread, widest_dtype
from projector.sites import MapKey, map_name
from projector.statistics.covariance import RunningCovariance, SequenceCorrelation, Together
from projector.statistics.example_facts import ExampleFacts
from projector.statistics.examples import RunningExamples
from projector.statistics.sampling import TokenSample, evenly_drawn

# Sequences that stand next to each other in the corpus go to the same half, in runs of this many:
# split singly, the two halves of one document would make a map look more stable than it is.
_RUN_LENGTH = 8


def in_first_half(sequence: Tensor, n_sequences: int) -> Tensor:
    """Which sequences, by index in the corpus, belong to its first half; runs alternate."""
    run = max(1, min(_RUN_LENGTH, n_sequences // 2))
    return (sequence // run) % 2 == 0


@dataclass(frozen=True)
class HalfStatistics:
    """Statistics of one layer and site over one half of the corpus."""

    covariance: RunningCovariance
    by_sequence: SequenceCorrelation | None

    @classmethod
    def empty(cls, n_neurons: int, correlation: str, device: torch.device) -> HalfStatistics:
        """Create empty statistics."""
        return cls(
            RunningCovariance(n_neurons, device),
            SequenceCorrelation(n_neurons, device) if correlation == "per-sequence" else None,
        )

    def merged(self, other: HalfStatistics) -> HalfStatistics:
        """Merge two statistics into a new one; neither argument is modified."""
        correlation = "pooled" if self.by_sequence is None else "per-sequence"
        device = self.covariance.mean.device
        both = HalfStatistics.empty(self.covariance.n_neurons, correlation, device)
        for half in (self, other):
            both.covariance.merge(half.covariance)
            if both.by_sequence is not None and half.by_sequence is not None:
                both.by_sequence.merge(half.by_sequence)
        return both

    def reduce(self, together: Together) -> None:
        """Add the data of the same half in every other process, in each process."""
        self.covariance.reduce(together)
        if self.by_sequence is not None:
            self.by_sequence.reduce(together)

    def correlation(self) -> Tensor:
        """The correlations in the requested mode, (N, N) float32; NaN for undefined neurons."""
        if self.by_sequence is None:
            return self.covariance.correlation(torch.float32)
        correlation = self.by_sequence.correlation(torch.float32)
        undefined = self.covariance.is_broken | self.covariance.is_dead
        correlation[undefined] = torch.nan
        correlation[:, undefined] = torch.nan
        return correlation


Halves = tuple[HalfStatistics, HalfStatistics]


class Resumable(Protocol):
    """A collector of data that can be stopped and resumed between two batches."""

    def state(self) -> dict[str, Tensor]:
        """The exact state."""

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of :meth:`state`."""


class Shared(Resumable, Protocol):
    """A resumable collector that several processes can share."""

    def reduce(self, together: Together) -> None:
        """Add the data of every other process, in each process."""


class Learner(Resumable, Protocol):
    """A learner that is updated with each batch's correlations while the model runs."""

    def step(self, correlations: Mapping[str, Tensor]) -> object:
        """Learn from a batch: map name → (N, N) float64 correlations, NaN if undefined."""


def _devices_of(
    model: nn.Module, taps: Mapping[MapKey, Tap], device: torch.device
) -> dict[MapKey, torch.device]:
    """The device of each activation, found by running the model on two tokens."""
    found: dict[MapKey, torch.device] = {}

    def note(key: MapKey, activation: Tensor) -> None:
        found[key] = activation.device

    ids = torch.zeros(1, 2, dtype=torch.int64, device=device)
    with torch.no_grad(), evaluating(model), capture(taps, note, then_stop=True):
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return found


class Gatherer:
    """Collects the statistics of activations, batch by batch.

    Args:
        model: the model to run; its output is not used.
        taps: the taps to read, by layer and site.
        widths: number of neurons of each tap.
        samples: number of tokens to sample, for maps that are too wide for a matrix.
        corpus: the corpus to be read.
        correlation: ``pooled`` or ``per-sequence``.
        examples: how many examples to gather for each neuron; None for no examples.
        learners: learners by name, updated with each batch's correlations.
    """

    def __init__(
        self,
        model: nn.Module,
        taps: Mapping[MapKey, Tap],
        widths: Mapping[MapKey, int],
        corpus: Corpus,
        *,
        samples: Mapping[MapKey, int] | None = None,
        correlation: str = "pooled",
        examples: ExampleFacts | None = None,
        learners: Mapping[str, Learner] | None = None,
    ) -> None:
        self.model, self.taps, self.n_sequences = model, taps, corpus.n_sequences
        self.correlation, self.learners = correlation, dict(learners or {})
        self.device = input_device(model)
        # Sums are kept where activations are: of a model that is spread, on many devices.
        found = _devices_of(model, taps, self.device) if is_spread(model) else {}
        self.gathered: dict[MapKey, Halves | TokenSample] = {}
        self.examples: dict[MapKey, RunningExamples] = {}
        self._starts = torch.from_numpy(corpus.starts.astype("int64"))
        dtype = widest_dtype(model)
        for key, n in widths.items():
            device = found.get(key, self.device)
            if device.type == "mps":
                # MPS has no float64, in which the sums are kept.
                device = torch.device("cpu")
            if examples is not None:
                drawn = evenly_drawn(corpus.n_tokens, examples.n_sample)
                self.examples[key] = RunningExamples(n, drawn, examples.n_extremes, device)
            if samples and key in samples:
                self.gathered[key] = TokenSample(n, corpus.n_tokens, samples[key], dtype, device)
                continue
            self.gathered[key] = (
                HalfStatistics.empty(n, correlation, device),
                HalfStatistics.empty(n, correlation, device),
            )

    def run(self, batch: Batch, n_before: int) -> None:
        """Run the model on one batch and add its activations.

        Args:
            n_before: number of tokens that count in earlier batches of the corpus.
        """
        number = batch.first + torch.arange(batch.keep.shape[0])
        first = in_first_half(number, self.n_sequences)
        keeps = [batch.keep & half[:, None] for half in (first, ~first)]
        # Found once for all maps, and moved once to each device that activations are on.
        kept = [keep.reshape(-1).nonzero()[:, 0] for keep in keeps]
        all_kept = batch.keep.reshape(-1).nonzero()[:, 0]
        in_first = keeps[0].reshape(-1)
        lengths = [[n for n in keep.sum(dim=1).tolist() if n] for keep in keeps]
        indices: dict[torch.device, list[Tensor]] = {}
        batch_statistics: dict[MapKey, RunningCovariance] = {}
        places = CountedTokens.of(batch, self._starts, n_before) if self.examples else None
        tokens: dict[torch.device, CountedTokens] = {}

        def consume(key: MapKey, activation: Tensor) -> None:
            device = activation.device
            if device not in indices:
                indices[device] = [index.to(device) for index in kept]
            every = token_rows(activation, batch.keep.shape)
            if places is not None:
                if device not in tokens:
                    tokens[device] = places.to(device)
                self.examples[key].update(every, tokens[device])
            into = self.gathered[key]
            if isinstance(into, TokenSample):
                into.update(every, all_kept, n_before, in_first)
                return
            for i, half in enumerate(into):
                rows = every.index_select(0, indices[device][i])
                if half.by_sequence is not None:
                    half.by_sequence.update(rows.split(lengths[i]))
                if not self.learners:
                    half.covariance.update(rows)
                    continue
                alone = RunningCovariance(rows.shape[1], half.covariance.mean.device)
                alone.update(rows)
                half.covariance.merge(alone)
                if key in batch_statistics:
                    batch_statistics[key].merge(alone)
                else:
                    batch_statistics[key] = alone

        inputs = {
            "input_ids": batch.input_ids.to(self.device),
            "attention_mask": batch.attention_mask.to(self.device),
        }
        reading = capture(self.taps, consume, then_stop=True)
        with torch.no_grad(), evaluating(self.model), reading:
            self.model(**inputs)
        if self.learners:
            shown = {map_name(*key): each.correlation() for key, each in batch_statistics.items()}
            for learner in self.learners.values():
                learner.step(shown)

    def state(self) -> dict[str, Tensor]:
        """The exact state of all sums and learners as tensors."""
        tensors: dict[str, Tensor] = {}
        for prefix, part in self._parts():
            tensors |= {f"{prefix}/{name}": tensor for name, tensor in part.state().items()}
        return tensors

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the result of :meth:`state`."""
        for prefix, part in self._parts():
            state = {
                name.removeprefix(f"{prefix}/"): tensor
                for name, tensor in tensors.items()
                if name.startswith(f"{prefix}/")
            }
            part.load_state(state)

    def reduce(self, together: Together) -> None:
        """Add the data of every other process, in each process."""
        for _, part in self._shared():
            part.reduce(together)

    def forget(self, key: MapKey) -> None:
        """Free the data of one map after it has been laid out."""
        del self.gathered[key]
        self.examples.pop(key, None)

    def _parts(self) -> Iterator[tuple[str, Resumable]]:
        yield from self._shared()
        for name, learner in self.learners.items():
            yield f"learner/{name}", learner

    def _shared(self) -> Iterator[tuple[str, Shared]]:
        for key, gathered in self.gathered.items():
            name = map_name(*key)
            if isinstance(gathered, TokenSample):
                yield f"{name}/sample", gathered
                continue
            for which, half in enumerate(gathered):
                yield f"{name}/{which}/covariance", half.covariance
                if half.by_sequence is not None:
                    yield f"{name}/{which}/by_sequence", half.by_sequence
        for key, examples in self.examples.items():
            yield f"{map_name(*key)}/examples", examples


def _all(number: int) -> bool:
    return True


def gather(
    gatherer: Gatherer,
    corpus: Corpus,
    batch_size: int,
    *,
    n_done: int = 0,
    is_mine: Callable[[int], bool] = _all,
    after_batch: Callable[[int, Batch], None] = lambda n_batches, batch: None,
) -> None:
    """Run the gatherer over the corpus, or over this process's share of it.

    Args:
        n_done: number of batches of the corpus, over all processes, to skip at the start.
        is_mine: whether the batch with a given index, from 0, belongs to this process's share.
        after_batch: called with the number of finished batches and the last batch.
    """
    n_before = 0
    for number, batch in enumerate(corpus.batches(batch_size)):
        if number >= n_done and is_mine(number):
            gatherer.run(batch, n_before)
            after_batch(number + 1, batch)
        n_before += batch.n_tokens
