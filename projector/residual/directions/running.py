"""A model's predictions on some texts with a changed stream after a layer.

Only the blocks from that layer on are run again, because earlier blocks give the same results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from projector.model.capture import Call, Tap, capture, evaluating, record_calls
from projector.model.intervention import Intervention, intervene
from projector.model.loading import input_device
from projector.residual.subject import Subject

# About as many tokens are run at once: logits of a large vocabulary take much memory.
_TOKENS_AT_ONCE = 256
# How far the blocks run again may be from the model itself: what rounding explains.
_TOLERANCE, _TOLERANCE_OF_HALVES = 1e-4, 2e-2


@dataclass(frozen=True)
class Text:
    """Token ids; those from ``first`` on are predicted, and ``first`` is at least 1."""

    ids: tuple[int, ...]
    first: int = 1

    @property
    def n_predicted(self) -> int:
        return max(0, len(self.ids) - self.first)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Texts that are run at once, padded at their ends."""

    numbers: tuple[int, ...]
    inputs: dict[str, Tensor]
    # (B, T) bool: whether the token of this place is predicted.
    counted: Tensor
    calls: dict[int, Call]
    # What the blocks at the chosen layers read.
    streams: dict[int, Tensor]


class Rerunner:
    """A model that has run some texts, and can run them again from some layers on.

    Args:
        layers: the layers to run again from.

    Raises:
        UserError: if the model is an encoder, or has no head that predicts the next token.
    """

    def __init__(self, subject: Subject, texts: Sequence[Text], layers: Iterable[int]) -> None:
        self._subject, self._texts = subject, texts
        self._readout = subject.readout
        self._blocks = [block.module for block in subject.architecture.blocks]
        self._layers = sorted(set(layers))
        with torch.no_grad(), evaluating(subject.model):
            self._batches = [self._record(numbers) for numbers in _batches(texts)]
            self.plain = self._measure(lambda batch: subject.model(**batch.inputs).logits)
            self._is_whole = {layer: not self._resumes(layer) for layer in self._layers}

    def run(self, layer: int, interventions: Sequence[Intervention]) -> Tensor:
        """Run the texts; returns −log probability of the predicted tokens of each, (n_texts,)
        float64, in nats.

        Args:
            interventions: changes to inputs or outputs of the block at ``layer`` or of later ones.
        """
        with torch.no_grad(), evaluating(self._subject.model), intervene(interventions):
            if self._is_whole[layer]:
                return self._measure(lambda batch: self._subject.model(**batch.inputs).logits)
            return self._measure(lambda batch: self._again(batch, layer))

    def _record(self, numbers: tuple[int, ...]) -> _Batch:
        texts = [self._texts[i] for i in numbers]
        places = torch.arange(max(len(each.ids) for each in texts))
        lengths = torch.tensor([len(each.ids) for each in texts])[:, None]
        firsts = torch.tensor([each.first for each in texts])[:, None]
        mask = places < lengths
        ids = torch.zeros(mask.shape, dtype=torch.int64)
        ids[mask] = torch.tensor([i for each in texts for i in each.ids])
        device = input_device(self._subject.model)
        inputs = {"input_ids": ids.to(device), "attention_mask": mask.long().to(device)}
        streams: dict[int, Tensor] = {}

        def keep(layer: int, tensor: Tensor) -> None:
            streams[layer] = tensor.detach().clone()

        modules = {i: self._blocks[i] for i in range(self._layers[0], len(self._blocks))}
        with capture({i: Tap(self._blocks[i], "input") for i in self._layers}, keep):
            calls, _ = record_calls(self._subject.model, modules, inputs)
        counted = mask & (places >= firsts)
        return _Batch(numbers, inputs, counted, calls, streams)

    def _again(self, batch: _Batch, layer: int) -> Tensor:
        stream = batch.streams[layer]
        for i in range(layer, len(self._blocks)):
            stream = batch.calls[i].again(self._blocks[i], stream)
        return self._readout.logits(stream)

    def _resumes(self, layer: int) -> bool:
        """Whether blocks called one after the other give what the model gives; else the whole
        model is run each time."""
        try:
            found = self._measure(lambda batch: self._again(batch, layer), self._batches[:1])
        except (TypeError, ValueError, RuntimeError):
            return False
        numbers = list(self._batches[0].numbers)
        expected = self.plain[numbers]
        is_wide = next(self._subject.model.parameters()).dtype in (torch.float32, torch.float64)
        bound = _TOLERANCE if is_wide else _TOLERANCE_OF_HALVES
        off = (found[numbers] - expected).abs()
        return bool((off <= bound * expected.abs().clamp_min(1)).all())

    def _measure(
        self, logits_of: Callable[[_Batch], Tensor], batches: Sequence[_Batch] | None = None
    ) -> Tensor:
        found = torch.zeros(len(self._texts), dtype=torch.float64)
        for batch in self._batches if batches is None else batches:
            found[list(batch.numbers)] = _losses(logits_of(batch), batch)
        return found


def _losses(logits: Tensor, batch: _Batch) -> Tensor:
    """(B,) float64, in nats."""
    counted = batch.counted[:, 1:]
    given = logits.reshape(*batch.counted.shape, -1)[:, :-1]
    chosen = counted.to(given.device)
    targets = batch.inputs["input_ids"][:, 1:].to(given.device)[chosen]
    each = functional.cross_entropy(given[chosen].float(), targets, reduction="none")
    losses = torch.zeros(counted.shape, dtype=torch.float64)
    losses[counted] = each.double().cpu()
    return losses.sum(dim=1)


def _batches(texts: Sequence[Text]) -> list[tuple[int, ...]]:
    """Numbers of texts of about the same length, that are run at once."""
    found: list[tuple[int, ...]] = []
    batch: list[int] = []
    for i in sorted(range(len(texts)), key=lambda i: -len(texts[i].ids)):
        if not texts[i].ids:
            continue
        if batch and (len(batch) + 1) * len(texts[batch[0]].ids) > _TOKENS_AT_ONCE:
            found.append(tuple(batch))
            batch = []
        batch.append(i)
    return [*found, tuple(batch)] if batch else found
