"""Compare a model with models that lack some neurons or heads, and as many random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dashboard.guest import Guest
from dashboard.prompts import Prompt, can_generate, continue_prompt
from projector.errors import UserError
from projector.model.intervention import Replacement, intervene
from projector.progress import Progress
from pruning.scoring.perplexity import score
from pruning.scoring.windows import EvaluationText

KINDS = {"mean": "held at their means", "zero": "set to zero"}

# Most tries to draw random heads that were not drawn before.
_MOST_TRIES = 50


@dataclass(frozen=True)
class Outcome:
    """The result for the whole model, or for one without some neurons or heads.

    Attributes:
        name: the neurons or heads that are missing.
        perplexity: perplexity on the text; None if there is none, or it isn't finite.
        continuation: continuation of the prompt; None without a prompt.
    """

    name: str
    perplexity: float | None
    continuation: str | None


def ablate(
    guest: Guest,
    text: EvaluationText | None,
    prompt: Prompt | None,
    layer: int,
    site: str,
    neurons: Sequence[int],
    *,
    kind: str,
    means: NDArray[np.floating] | None,
    among: Sequence[int],
    n_random: int = 3,
    seed: int = 0,
    advance: Callable[[int], None] = lambda n: None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Compare the whole model, the model without ``neurons``, and models without as many random
    neurons.

    Args:
        text: the text to score; None for no score.
        kind: ``zero``, or ``mean`` for (N,) ``means`` over a corpus.
        among: neurons that random ones are drawn from, without the ablated ones if enough are left.
        n_random: how many draws.
        advance: called after each, and with 0 for each token that is added.
        progress: receives the number of scored windows.
    """
    tap = guest.architecture.blocks[layer].taps[site]
    others = sorted(set(among) - set(neurons))
    pool = others if len(others) >= len(neurons) else sorted(set(among))
    generator = np.random.default_rng(seed)
    draws = [
        sorted(generator.choice(pool, min(len(neurons), len(pool)), replace=False).tolist())
        for _ in range(n_random)
    ]

    def without(gone: Sequence[int]) -> list[Replacement]:
        chosen = torch.tensor(list(gone), dtype=torch.int64)
        values = torch.zeros(len(chosen))
        if kind == "mean" and means is not None:
            values = torch.from_numpy(np.asarray(means, dtype=np.float32))[chosen]
        return [Replacement(tap, chosen, values)] if len(chosen) else []

    cases = [("the whole model", without(())), ("without the group", without(neurons))]
    cases += [
        (f"without {len(d):,} random neurons, draw {k + 1}", without(d))
        for k, d in enumerate(draws)
    ]
    return _compare(guest, text, prompt, cases, advance, progress)


def ablate_heads(
    guest: Guest,
    text: EvaluationText | None,
    prompt: Prompt | None,
    heads: Sequence[tuple[int, int]],
    *,
    n_random: int = 3,
    seed: int = 0,
    advance: Callable[[int], None] = lambda n: None,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Compare the whole model, the model without some heads, and models without as many random
    heads.

    The input of the output projection from an ablated head is set to zero.

    Args:
        text: the text to score; None for no score.
        heads: layer and number of each head.
        n_random: number of draws. Each draw takes as many heads of each layer as are ablated there,
            and other heads than earlier draws if any are left. In a layer with too few other heads,
            all heads can be drawn.
        advance: called after each, and with 0 for each token that is added.
        progress: receives the number of scored windows.

    Raises:
        UserError: if a layer has no attention whose heads are known, or a head doesn't exist.
    """
    blocks = guest.subject.layout.blocks
    by_layer: dict[int, list[int]] = {}
    for layer, head in sorted(set(heads)):
        if layer >= len(blocks):
            raise UserError(f"the model has no layer {layer}: give 0 to {len(blocks) - 1}")
        by_layer.setdefault(layer, []).append(head)
    whole = [Replacement.heads(blocks[layer], gone) for layer, gone in by_layer.items()]
    generator = np.random.default_rng(seed)

    def draw() -> dict[int, list[int]]:
        found: dict[int, list[int]] = {}
        for layer, gone in by_layer.items():
            everyone = range(blocks[layer].n_heads or 0)
            others = [head for head in everyone if head not in gone]
            pool = others if len(others) >= len(gone) else list(everyone)
            found[layer] = sorted(generator.choice(pool, len(gone), replace=False).tolist())
        return found

    n_heads = sum(map(len, by_layer.values()))
    name = "head" if n_heads == 1 else "heads"
    shown = ", ".join(f"L{layer} H{head}" for layer, gone in by_layer.items() for head in gone)
    none: list[Replacement] = []
    cases = [("the whole model", none), (f"without {shown}", whole)]
    drawn_before: list[dict[int, list[int]]] = []
    for k in range(n_random):
        # A layer may have few other heads: the same heads are drawn twice only if all were drawn.
        tries = (draw() for _ in range(_MOST_TRIES))
        drawn = next((each for each in tries if each not in drawn_before), None) or draw()
        drawn_before.append(drawn)
        names = ", ".join(f"L{layer} H{head}" for layer, gone in drawn.items() for head in gone)
        replacements = [Replacement.heads(blocks[layer], gone) for layer, gone in drawn.items()]
        cases.append((f"without {n_heads:,} random {name}, draw {k + 1}: {names}", replacements))
    return _compare(guest, text, prompt, cases, advance, progress)


def _compare(
    guest: Guest,
    text: EvaluationText | None,
    prompt: Prompt | None,
    cases: Sequence[tuple[str, Sequence[Replacement]]],
    advance: Callable[[int], None],
    progress: Progress | None,
) -> list[Outcome]:
    """Run the model with each case's replacements, by name."""
    outcomes = []
    for name, replacements in cases:
        with intervene(replacements):
            perplexity = None
            if text is not None:
                found = score(guest.loaded.model, text, progress=progress)
                perplexity = None if found.problem else found.perplexity
            said = None
            if prompt is not None and can_generate(guest):
                said = continue_prompt(guest, prompt, lambda n: advance(0))
        outcomes.append(Outcome(name, perplexity, said))
        advance(1)
    return outcomes
