"""Calibration text, and what it says of a model's neurons: means and second moments."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch, Corpus
from projector.corpus.documents import Document, hash_documents
from projector.corpus.sources import open_text
from projector.corpus.tokens import DEFAULT_SEQUENCE_LENGTH, read_corpus
from projector.errors import SettingError, UserError, named
from projector.memory import out_of_memory, size_text
from projector.model.architecture.records import Architecture, Mlp
from projector.model.capture import Tap, capture, evaluating, kept_rows
from projector.model.context import find_context
from projector.model.loading import LoadedModel
from projector.progress import Progress, Silent
from projector.statistics.covariance import RunningCovariance, packed_numel

Key = TypeVar("Key", bound=Hashable)
DEFAULT_SEQUENCES = 256
# Of five sequences, the last tells how well what the others say holds for text they are not.
_HELD_OUT_EVERY = 5
LEAST_SEQUENCES = _HELD_OUT_EVERY
_CHARACTERS_A_TOKEN = 8


@dataclass(frozen=True)
class CalibrationText:
    """A source as sequences of token ids, of which each seed draws its own.

    Attributes:
        source: as the user gave it; a file by its name, without its path.
        corpus: all its sequences.
        document_hashes: see :func:`projector.corpus.documents.hash_documents`.
    """

    source: str
    corpus: Corpus
    document_hashes: frozenset[str]

    @property
    def sequence_length(self) -> int:
        """Tokens of the longest sequence."""
        return int(np.diff(self.corpus.starts).max())

    def draw(self, n_sequences: int, seed: int) -> Corpus:
        """``n_sequences`` of the sequences at random, longest ones only while they suffice.

        Raises:
            UserError: if there are fewer, or none is asked for.
        """
        if n_sequences < 1:
            raise SettingError("n_sequences", n_sequences, "leaves no text", "give 1 or more")
        lengths = np.diff(self.corpus.starts)
        if len(lengths) < n_sequences:
            raise UserError(
                f"calibration text '{self.source}' has {len(lengths):,} sequences, and "
                f"{n_sequences:,} are asked for: give more text or fewer {named('n_sequences')}",
                setting="n_sequences",
                value=n_sequences,
            )
        whole = np.flatnonzero(lengths == lengths.max())
        usable = whole if len(whole) >= n_sequences else np.arange(len(lengths))
        chosen = np.sort(np.random.default_rng(seed).choice(usable, n_sequences, replace=False))
        starts = self.corpus.starts
        rows = [self.corpus.ids[starts[i] : starts[i + 1]] for i in chosen]
        skipped = self.corpus.skip_first
        return replace(
            self.corpus,
            ids=np.concatenate(rows),
            starts=np.concatenate([[0], np.cumsum(lengths[chosen])]),
            n_tokens=int(np.maximum(lengths[chosen] - skipped, 0).sum()),
        )


@dataclass(frozen=True)
class Moments:
    """Moments of one layer's N neurons over some tokens.

    Attributes:
        n_tokens: how many.
        mean: E[h], (N,) float64.
        second: E[h hᵀ], (N, N) float64.
    """

    n_tokens: int
    mean: Tensor
    second: Tensor

    @property
    def covariance(self) -> Tensor:
        """(N, N) float64."""
        return self.second - torch.outer(self.mean, self.mean)

    @classmethod
    def of(cls, running: RunningCovariance) -> Moments:
        """The moments that streamed statistics amount to."""
        mean = running.mean.cpu()
        return cls(running.n_tokens, mean, running.covariance().cpu() + torch.outer(mean, mean))

    def joined(self, other: Moments) -> Moments:
        """The moments over the tokens of both."""
        total = self.n_tokens + other.n_tokens
        share = self.n_tokens / total
        return Moments(
            total,
            share * self.mean + (1 - share) * other.mean,
            share * self.second + (1 - share) * other.second,
        )


@dataclass(frozen=True)
class LayerMoments:
    """Moments over the tokens that estimates are made from, and over some that check them."""

    fit: Moments
    held_out: Moments

    @property
    def all(self) -> Moments:
        return self.fit.joined(self.held_out)


@dataclass(frozen=True)
class Calibration:
    """The sequences drawn by one seed, and the moments of every layer's MLP neurons over them."""

    text: CalibrationText
    corpus: Corpus
    layers: tuple[LayerMoments, ...]
    batch_size: int

    def batches(self) -> Iterator[Batch]:
        """The sequences in order."""
        return self.corpus.batches(self.batch_size)

    @property
    def n_fit_tokens(self) -> int:
        """Tokens that estimates are made from."""
        return self.layers[0].fit.n_tokens


def read_calibration(
    source: str | Iterable[Document],
    loaded: LoadedModel,
    architecture: Architecture,
    *,
    sequence_length: int | None = None,
    n_sequences: int = DEFAULT_SEQUENCES,
    progress: Progress | None = None,
) -> CalibrationText:
    """Read and tokenize calibration text.

    A causal model reads documents one after another. First positions count, unlike in a
    projection: some models keep huge activations there, and break without them. Of a stream from
    the hub only as much is read as several draws of ``n_sequences`` need.

    Args:
        source: see :func:`projector.corpus.sources.read_documents`; or the documents themselves.
        sequence_length: tokens of a sequence; None for 256, or what the model takes if less.

    Raises:
        UserError: if there is no such source, or it holds no text.
    """
    progress = progress or Silent()
    length = choose_length(loaded, sequence_length)
    text = open_text(source)
    documents = text.documents
    if text.is_stream:
        documents = _first_characters(documents, 8 * n_sequences * length * _CHARACTERS_A_TOKEN)
    kept: list[Document] = []

    def watched() -> Iterator[Document]:
        for document in documents:
            kept.append(document)
            yield document

    progress.begin("Reading the calibration text", None, "documents")
    corpus = read_corpus(
        watched(),
        loaded.tokenizer,
        sequence_length=length,
        skip_first=0,
        packed=architecture.is_causal,
        advance=progress.advance,
    )
    progress.end()
    return CalibrationText(text.name, replace(corpus, source=text.name), hash_documents(kept))


def choose_length(loaded: LoadedModel, asked: int | None) -> int:
    """Tokens of a calibration sequence: what was asked for, if the model takes it.

    Raises:
        UserError: if it does not, or no token would count.
    """
    most = find_context(loaded.model, loaded.tokenizer)
    if asked is None:
        return min(DEFAULT_SEQUENCE_LENGTH, most or DEFAULT_SEQUENCE_LENGTH)
    if asked < 2 or (most is not None and asked > most):
        raise SettingError(
            "sequence_length",
            asked,
            "is too small" if asked < 2 else "is more than the model takes",
            "give 2 or more" if most is None else f"give 2 to {most:,}",
        )
    return asked


def _first_characters(documents: Iterator[Document], most: int) -> Iterator[Document]:
    n_read = 0
    for document in documents:
        yield document
        n_read += len(str(document))
        if n_read >= most:
            return


def calibrate(
    loaded: LoadedModel,
    architecture: Architecture,
    text: CalibrationText,
    *,
    n_sequences: int = DEFAULT_SEQUENCES,
    seed: int = 0,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> Calibration:
    """Run the model over the sequences of one seed and gather its neurons' moments.

    Every fifth sequence is held out. Costs one forward pass, and two sums and two N × N
    matrices in float64 a layer.

    Raises:
        UserError: if there are too few sequences, or the moments are not finite.
    """
    progress = progress or Silent()
    corpus = text.draw(n_sequences, seed)
    mlps = mlps_of(architecture)
    device = _sums_on(architecture, next(loaded.model.parameters()).device)
    running = {
        (layer, part): RunningCovariance(mlp.n_neurons, device)
        for layer, mlp in enumerate(mlps)
        for part in (False, True)
    }
    trunk = getattr(loaded.model, "base_model", loaded.model)
    taps = {layer: architecture.blocks[layer].taps["mlp_post"] for layer in range(len(mlps))}
    progress.begin("Calibrating", corpus.n_sequences, "sequences")
    for batch in corpus.batches(batch_size):
        held_out = is_held_out(batch)

        keeps = {part: batch.keep & (held_out == part)[:, None] for part in (False, True)}

        def count(layer: int, activation: Tensor, keeps: dict[bool, Tensor] = keeps) -> None:
            for part, keep in keeps.items():
                running[layer, part].update(kept_rows(activation, keep))

        run_batch(trunk, batch, count, taps)
        progress.advance(len(batch.input_ids))
    progress.end()
    for layer, mlp in enumerate(mlps):
        parts = running[layer, False], running[layer, True]
        n_bad = int((parts[0].is_broken | parts[1].is_broken).sum())
        if not any(part.n_tokens for part in parts):
            # Tokens on which no neuron is finite are left out.
            n_bad = mlp.n_neurons
        if n_bad:
            raise UserError(
                f"layer {layer} has {n_bad:,} neurons whose activations are not finite over the "
                f"calibration text: try {named('dtype', 'float32')}"
            )
    layers = tuple(
        LayerMoments(Moments.of(running[layer, False]), Moments.of(running[layer, True]))
        for layer in range(len(mlps))
    )
    return Calibration(text, corpus, layers, batch_size)


def run_batch(
    model: nn.Module, batch: Batch, consume: Callable[[Key, Tensor], None], taps: Mapping[Key, Tap]
) -> None:
    """Run the model on one batch with taps open; nothing is kept but what ``consume`` keeps."""
    device = next(model.parameters()).device
    with torch.no_grad(), evaluating(model), capture(taps, consume):
        model(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device))


def is_held_out(batch: Batch) -> Tensor:
    """Which sequences of a batch are held out, (B,) bool."""
    index = torch.arange(batch.first, batch.first + len(batch.input_ids))
    return index % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1


def mlps_of(architecture: Architecture) -> tuple[Mlp, ...]:
    """The MLP of every layer.

    Raises:
        UserError: if a layer has none whose neurons can be removed, with the reason.
    """
    mlps = []
    for layer, block in enumerate(architecture.blocks):
        if block.mlp is None:
            raise UserError(f"layer {layer} can't be pruned: {block.missing['mlp_post']}")
        mlps.append(block.mlp)
    return tuple(mlps)


def check_enough(calibration: Calibration, widths: Sequence[int]) -> None:
    """Raise a UserError if too few tokens leave the moments of the widest layer singular.

    E[h hᵀ] over T tokens has a rank of at most T.
    """
    _check_count(calibration.n_fit_tokens, calibration.corpus.n_sequences, widths)


def check_draw(text: CalibrationText, n_sequences: int, seed: int, widths: Sequence[int]) -> None:
    """The same of a seed's sequences, before the model has read them."""
    corpus = text.draw(n_sequences, seed)
    counts = np.maximum(np.diff(corpus.starts) - corpus.skip_first, 0)
    held_out = np.arange(len(counts)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    _check_count(int(counts[~held_out].sum()), n_sequences, widths)


def _check_count(n_tokens: int, n_sequences: int, widths: Sequence[int]) -> None:
    widest = max(widths)
    if n_tokens < widest:
        n_fit = n_sequences - n_sequences // _HELD_OUT_EVERY
        needed_fit = -(-widest * n_fit // max(1, n_tokens))
        # And those that are held out between them.
        needed = needed_fit + (needed_fit - 1) // (_HELD_OUT_EVERY - 1)
        raise UserError(
            f"{n_tokens:,} calibration tokens are too few for {widest:,} neurons, whose moments "
            f"are singular below {widest:,} tokens: give {named('n_sequences', needed)} or more",
            setting="n_sequences",
            value=n_sequences,
            expected=f"{needed} or more",
        )


def check_memory(architecture: Architecture, device: torch.device) -> None:
    """Raise a UserError if the moments of all layers do not fit into memory.

    The sums are kept where the model is, if there is room, and a copy on the CPU.
    """
    free = psutil.virtual_memory().available
    n_bytes = sum(2 * 8 * mlp.n_neurons**2 for mlp in mlps_of(architecture))
    sums_on = _sums_on(architecture, device)
    if sums_on.type == "cpu":
        n_bytes += _sum_bytes(architecture, sums_on)
    if n_bytes > free:
        widest = max(mlp.n_neurons for mlp in mlps_of(architecture))
        raise UserError(
            f"out of memory: the moments of {len(architecture.blocks)} layers of up to {widest:,} "
            f"neurons take {size_text(n_bytes)}, and {size_text(free)} are free"
        )


def pruning_memory(architecture: Architecture) -> AbstractContextManager[None]:
    """Turn what a full memory raises while calibrating, planning or refitting into one line."""
    widest = max(mlp.n_neurons for mlp in mlps_of(architecture))
    return out_of_memory(
        f": one matrix of {widest:,} × {widest:,} neurons takes {size_text(8 * widest**2)}: make "
        f"memory free, or take fewer {named('n_workers')} or fewer {named('n_sequences')}"
    )


def _sum_bytes(architecture: Architecture, device: torch.device) -> int:
    """Two sums a layer: over the tokens of the fit, and over the held-out ones."""
    return sum(2 * 8 * packed_numel(mlp.n_neurons, device) for mlp in mlps_of(architecture))


def _sums_on(architecture: Architecture, device: torch.device) -> torch.device:
    """Where sums are kept: MPS has no float64, and a GPU may have no room beside the model."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        # While they are made into matrices, one after another, a matrix more; and activations.
        has_room = 4 * _sum_bytes(architecture, device) < free
        return device if has_room else torch.device("cpu")
    return torch.device("cpu") if device.type == "mps" else device
