"""Facts for a neuron's card: pure functions of examples, correlations and weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dashboard.guest import Guest
from projector.corpus.pieces import Pieces, readable
from projector.errors import UserError
from projector.model.architecture.weights import read_weights
from projector.model.capture import capture, evaluating
from projector.statistics.examples import Examples

QUANTILES = (0.99, 0.9, 0.75, 0.5, 0.25, 0.1, 0.01)
_N_BINS = 60
# How many of the 32 shown tokens come before the token: a causal neuron depends only on these.
_N_BEFORE, _N_AFTER = 23, 8
# Most tokens that the model reads before the shown token, to get the activation in the corpus.
_MOST_READ = 256


@dataclass(frozen=True)
class Place:
    """A token of the corpus to show for a neuron.

    Attributes:
        group: why it is shown.
        at: its number in the corpus.
        value: the neuron's activation on it.
    """

    group: str
    at: int
    value: float


@dataclass(frozen=True)
class Excerpt:
    """Some tokens of the corpus with the neuron's activation on each; ``focus`` is the shown token.

    Unknown activations are NaN.
    """

    place: Place
    texts: tuple[str, ...]
    values: tuple[float, ...]
    focus: int


@dataclass(frozen=True, eq=False)
class Histogram:
    """Counts of activations between edges: (B,) and (B + 1,)."""

    counts: NDArray[np.int64]
    edges: NDArray[np.float64]


@dataclass(frozen=True)
class Neighbour:
    """Another neuron and ρ with it."""

    neuron: int
    rho: float


def histogram(examples: Examples, neuron: int) -> Histogram:
    """Histogram over the evenly sampled tokens on which the neuron is finite."""
    values = examples.sample[:, neuron].double().numpy()
    counts, edges = np.histogram(values[np.isfinite(values)], bins=_N_BINS)
    return Histogram(counts, edges)


def places(examples: Examples, neuron: int, seed: int = 0) -> list[Place]:
    """Tokens with the neuron's highest and lowest activations, at its quantiles, and at random."""
    found = []
    for group, values, at in (
        ("highest", examples.highest, examples.highest_at),
        ("lowest", examples.lowest, examples.lowest_at),
    ):
        found += [
            Place(group, int(token), float(value))
            for value, token in zip(values[neuron], at[neuron], strict=True)
            if token >= 0
        ]
    sample = examples.sample[:, neuron].double()
    known = sample.isfinite().nonzero()[:, 0]
    order = known[sample[known].argsort()]
    for quantile in QUANTILES if len(order) else ():
        row = int(order[round(quantile * (len(order) - 1))])
        found.append(
            Place(f"{quantile:.0%} quantile", int(examples.sample_at[row]), float(sample[row]))
        )
    chosen = np.random.default_rng(seed).choice(len(order), min(8, len(order)), replace=False)
    found += [
        Place("at random", int(examples.sample_at[row]), float(sample[row]))
        for row in known[chosen].tolist()
    ]
    return found


def saved_excerpts(examples: Examples, pieces: Pieces, wanted: Sequence[Place]) -> list[Excerpt]:
    """The text around each place, without the model: only the place's own activation is known.

    Places whose tokens weren't kept are left out.
    """
    found = []
    for place in wanted:
        if not 0 <= place.at < len(examples.ids):
            continue
        ids, focus = examples.context(place.at, _N_BEFORE, _N_AFTER)
        values = [np.nan] * len(ids)
        values[focus] = place.value
        found.append(Excerpt(place, _in_one_line(pieces.texts(ids)), tuple(values), focus))
    return found


def _in_one_line(texts: Sequence[str]) -> tuple[str, ...]:
    """Tokens' texts with ⏎ for a new line, because an excerpt of code would take a whole screen."""
    return tuple(readable(text, running=True).replace("\n", "").replace("\t", "") for text in texts)


def read_excerpts(
    guest: Guest,
    examples: Examples,
    layer: int,
    site: str,
    neuron: int,
    wanted: Sequence[Place],
    *,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Excerpt]:
    """Run the model over the text before each place, and read the neuron at every token.

    Tokens after the place are shown too; a causal neuron has read more there than at the place.
    """
    model = guest.loaded.model
    trunk: Any = getattr(model, "base_model", model)
    device = next(model.parameters()).device
    tap = guest.architecture.blocks[layer].taps[site]
    found = []
    for place in wanted:
        # Tokens after the place don't change a causal neuron's activation, but other neurons'.
        n_after = _N_AFTER if guest.architecture.is_causal else _MOST_READ
        ids, focus = examples.context(place.at, _MOST_READ - _N_AFTER - 1, n_after)
        passed: list[Tensor] = []
        with (
            torch.no_grad(),
            evaluating(model),
            capture({"n": tap}, lambda _, tensor, passed=passed: passed.append(tensor)),  # type: ignore[misc]
        ):
            tensor = torch.tensor([ids], device=device)
            trunk(input_ids=tensor, attention_mask=torch.ones_like(tensor))
        values = passed[0].reshape(len(ids), -1)[:, neuron].float().cpu().tolist()
        first, end = max(0, focus - _N_BEFORE), focus + _N_AFTER + 1
        shown = ids[first:end]
        texts = Pieces.of_tokenizer(guest.loaded.tokenizer, shown).texts(shown)
        found.append(Excerpt(place, _in_one_line(texts), tuple(values[first:end]), focus - first))
        advance(1)
    return found


def neighbours(
    correlation: NDArray[np.float32], neuron: int, most: int = 10
) -> tuple[list[Neighbour], list[Neighbour]]:
    """The neurons with the highest and the lowest ρ to one; by ρ, not by the map."""
    rho = correlation[neuron].astype(np.float64).copy()
    rho[neuron] = np.nan
    known = np.flatnonzero(np.isfinite(rho))
    order = known[np.argsort(rho[known], kind="stable")]
    highest = [Neighbour(int(j), float(rho[j])) for j in order[::-1][:most]]
    lowest = [Neighbour(int(j), float(rho[j])) for j in order[:most] if rho[j] < 0]
    return highest, lowest


@dataclass(frozen=True)
class Written:
    """A token of the vocabulary, and the neuron's effect on its logit per unit of activation."""

    text: str
    effect: float


def written(guest: Guest, layer: int, neuron: int, most: int = 12) -> tuple[list[Written], ...]:
    """Tokens that an MLP neuron's output weights promote and suppress most.

    The neuron's output weights through the unembedding, W_U w_j, minus the mean over tokens, which
    the softmax ignores. Later layers and the scale of the final norm are left out. (Geva et al.
    2022, arXiv:2203.14680.)

    Raises:
        UserError: if the model has no unembedding, or the layer has no MLP with known weights.
    """
    if not guest.architecture.is_causal:
        raise UserError(
            "an encoder has another layer between its neurons and the vocabulary, so the effect "
            "of one neuron can't be read from its weights"
        )
    mlp = guest.architecture.blocks[layer].mlp
    model: Any = guest.loaded.model
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if mlp is None:
        raise UserError(f"the output weights of layer {layer}'s MLP can't be found")
    weight = getattr(head, "weight", None)
    vector = read_weights(mlp).output[:, neuron].detach().float()
    if weight is None or weight.shape[1] != len(vector):
        raise UserError("this model has no unembedding that reads the residual stream as it is")
    effects = weight.detach().float() @ vector.to(weight.device)
    effects = (effects - effects.mean()).cpu()
    # Rows beyond the tokenizer's tokens pad the matrix.
    n_tokens = min(len(effects), len(guest.loaded.tokenizer))
    order = effects[:n_tokens].argsort(descending=True)
    ends = order[:most].tolist(), order.flip(0)[:most].tolist()
    pieces = Pieces.of_tokenizer(guest.loaded.tokenizer, {i for end in ends for i in end})
    return tuple(
        [Written(readable(pieces.text(i)), float(effects[i])) for i in end] for end in ends
    )


def output_norms(guest: Guest) -> dict[int, NDArray[np.floating]]:
    """Norm of each MLP neuron's output weights, (N,), by layer, for layers whose MLP is known."""
    found: dict[int, NDArray[np.floating]] = {}
    for layer, block in enumerate(guest.architecture.blocks):
        if block.mlp is not None:
            weights = read_weights(block.mlp).output
            found[layer] = weights.detach().float().norm(dim=0).cpu().numpy()
    return found


def importance(
    mean: NDArray[np.floating], spread: NDArray[np.floating], norms: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Root mean square activation × norm of the output weights of MLP neurons, (N,).

    It estimates a neuron's mean contribution to the stream, after Wanda (Sun et al. 2023,
    arXiv:2306.11695) by whole neurons.

    Args:
        mean, spread: (N,) mean and standard deviation of activations over a corpus.
        norms: (N,), see :func:`output_norms`.
    """
    return np.sqrt(mean**2 + spread**2) * norms
