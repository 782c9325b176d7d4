"""Moments of a layer's neurons together with partners in earlier layers, over calibration text.

A refit of layer l from its own neurons h (N,) and partners p (P,) of earlier layers reads the mean
and the second moments of z = [h, p], (N + P,). They are gathered in forward passes of the model,
for as many layers at once as fit in memory: 8 (N + P)² bytes per layer, for the upper triangles of
two sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from projector.corpus.batches import Batch, Corpus
from projector.model.architecture.records import Architecture
from projector.model.capture import capture, evaluating, kept_rows
from projector.model.loading import input_device
from projector.progress import Progress, Silent
from pruning.calibration.mlps import mlps_of
from pruning.calibration.moments import LayerMoments
from pruning.calibration.text import is_held_out
from pruning.calibration.walk import DEFAULT_BATCH, sums_on
from pruning.reuse.partners import Scales

# Bytes that the sums of the layers of one pass may take if no budget is given.
DEFAULT_BYTES = 2_000_000_000


@dataclass(frozen=True)
class Pairs:
    """Partners of one layer, each once, in the order of their layers and numbers.

    Attributes:
        layer, neuron: (P,) int64.
    """

    layer: Tensor
    neuron: Tensor

    @classmethod
    def of(cls, layers: Tensor, neurons: Tensor) -> Pairs:
        """Make pairs from partners in any number and order; both arguments have equal shapes."""
        both = torch.stack([layers.flatten(), neurons.flatten()], dim=1)
        rows = both.unique(dim=0) if len(both) else both
        return cls(rows[:, 0].contiguous(), rows[:, 1].contiguous())

    def __len__(self) -> int:
        return len(self.layer)

    def place(self, layers: Tensor, neurons: Tensor) -> Tensor:
        """The indices of partners among these, int64 of their shape."""
        if not len(self):
            return torch.zeros_like(layers)
        width = 1 + max(int(self.neuron.max()), int(neurons.max()) if neurons.numel() else 0)
        return torch.searchsorted(self.layer * width + self.neuron, layers * width + neurons)


def gather_scales(
    model: nn.Module,
    architecture: Architecture,
    corpus: Corpus,
    *,
    batch_size: int = DEFAULT_BATCH,
    progress: Progress | None = None,
) -> tuple[Scales, ...]:
    """Mean and variance of every layer's neurons over the text; one forward pass."""
    progress = progress or Silent()
    sums = [_Spread(mlp.n_neurons) for mlp in mlps_of(architecture)]
    progress.begin("Measuring neurons", corpus.n_sequences, "sequences")
    for batch in corpus.batches(batch_size):
        layers = range(len(sums))
        _run(model, architecture, batch, layers, lambda layer, rows: sums[layer].add(rows))
        progress.advance(len(batch.input_ids))
    progress.end()
    return tuple(Scales(each.mean, each.squares / each.n) for each in sums)


def gather_moments(
    model: nn.Module,
    architecture: Architecture,
    corpus: Corpus,
    wanted: Mapping[int, Pairs],
    *,
    batch_size: int = DEFAULT_BATCH,
    n_bytes: int = DEFAULT_BYTES,
    progress: Progress | None = None,
) -> Iterator[tuple[int, LayerMoments]]:
    """Yield the moments of each layer's neurons and partners together, (N + P) values.

    Every fifth sequence is held out, as in any calibration.

    Args:
        wanted: for each layer, the partners whose moments are gathered together with its neurons'.
        n_bytes: bytes that sums may take at once; one layer's sums are held in any case.

    Raises:
        UserError: if a layer's moments are not finite.
    """
    progress = progress or Silent()
    widths = {i: mlps_of(architecture)[i].n_neurons + len(wanted[i]) for i in sorted(wanted)}
    groups = groups_of(widths, n_bytes)
    progress.begin("Calibrating", corpus.n_sequences * len(groups), "sequences")
    for group in groups:
        place = sums_on(sum(8 * widths[i] ** 2 for i in group), input_device(model))
        moments = {i: LayerMoments(widths[i], place) for i in group}
        own = {i: wanted[i] for i in group}
        for batch in corpus.batches(batch_size):
            _add_batch(model, architecture, batch, own, moments)
            progress.advance(len(batch.input_ids))
        for layer in group:
            moments[layer].check(layer)
            yield layer, moments.pop(layer)
    progress.end()


def groups_of(widths: Mapping[int, int], n_bytes: int) -> list[list[int]]:
    """Groups of layers whose sums fit in memory together, in order.

    Args:
        widths: N + P for each layer.
    """
    groups: list[list[int]] = []
    room = 0
    for layer, width in widths.items():
        need = 8 * width**2
        if not groups or need > room:
            groups.append([])
            room = n_bytes
        groups[-1].append(layer)
        room -= need
    return groups


def _add_batch(
    model: nn.Module,
    architecture: Architecture,
    batch: Batch,
    wanted: Mapping[int, Pairs],
    moments: Mapping[int, LayerMoments],
) -> None:
    held_out = is_held_out(batch)[:, None].expand_as(batch.keep)[batch.keep]
    read = {int(i) for pairs in wanted.values() for i in pairs.layer.unique()}
    needed = {
        i: torch.cat([p.neuron[p.layer == i] for p in wanted.values()]).unique() for i in read
    }
    seen: dict[int, Tensor] = {}

    def count(layer: int, rows: Tensor) -> None:
        if layer in wanted:
            parts = [rows]
            for i in wanted[layer].layer.unique().tolist():
                own = wanted[layer].neuron[wanted[layer].layer == i]
                parts.append(seen[i][:, torch.searchsorted(needed[i], own).to(rows.device)])
            joint = torch.cat(parts, dim=1)
            for part in (False, True):
                some = (held_out == part).to(joint.device)
                moments[layer].update(joint[some], held_out=part)
        if layer in read:
            seen[layer] = rows[:, needed[layer].to(rows.device)]

    _run(model, architecture, batch, sorted({*wanted, *read}), count)


def _run(
    model: nn.Module,
    architecture: Architecture,
    batch: Batch,
    layers: Sequence[int],
    consume: Callable[[int, Tensor], None],
) -> None:
    """Pass the rows (n_tokens, N) of some layers' neurons over a batch to ``consume``, in order."""
    taps = {layer: architecture.blocks[layer].taps["mlp_post"] for layer in layers}

    def keep(layer: int, activation: Tensor) -> None:
        consume(layer, kept_rows(activation, batch.keep))

    device = input_device(model)
    trunk = getattr(model, "base_model", model)
    with torch.no_grad(), evaluating(model), capture(taps, keep, then_stop=True):
        trunk(input_ids=batch.input_ids.to(device), attention_mask=batch.attention_mask.to(device))


class _Spread:
    """Mean and squared deviations of N neurons, batch by batch in float64 (Chan, Golub, LeVeque
    1979)."""

    def __init__(self, n_neurons: int) -> None:
        self.n = 0
        self.mean = torch.zeros(n_neurons, dtype=torch.float64)
        self.squares = torch.zeros(n_neurons, dtype=torch.float64)

    def add(self, rows: Tensor) -> None:
        """Add (n_tokens, N) activations."""
        values = rows.cpu().double()
        n, mean = len(values), values.mean(dim=0)
        total = self.n + n
        step = mean - self.mean
        self.squares += (values - mean).square_().sum(dim=0) + step**2 * self.n * n / total
        self.mean += step * n / total
        self.n = total
