"""What a model says, and how well, without some of its neurons; beside as many random ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dashboard.guest import Guest
from dashboard.prompts import Prompt, can_generate, continue_prompt
from projector.model.intervention import Replacement, intervene
from projector.progress import Progress
from pruning.scoring.perplexity import score
from pruning.scoring.windows import EvaluationText

KINDS = {"mean": "held at their means", "zero": "set to zero"}


@dataclass(frozen=True)
class Outcome:
    """The model as it is, or without some neurons.

    Attributes:
        name: what is missing.
        perplexity: over the text; None where the model has none, or it is not finite.
        continuation: of the prompt; None where there is no prompt.
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
    """The whole model, the one without ``neurons``, and ones without as many random ones.

    Args:
        text: scored; None for no score.
        kind: ``zero``, or ``mean``: (N,) ``means`` over a corpus.
        among: neurons that random ones are drawn from; those ablated are left out where they
            can be.
        n_random: how many draws.
        advance: called after each, and with 0 for each token that is added.
        progress: told of the windows that are scored.
    """
    tap = guest.architecture.blocks[layer].taps[site]
    others = sorted(set(among) - set(neurons))
    pool = others if len(others) >= len(neurons) else sorted(set(among))
    generator = np.random.default_rng(seed)
    draws = [
        sorted(generator.choice(pool, min(len(neurons), len(pool)), replace=False).tolist())
        for _ in range(n_random)
    ]
    cases: list[tuple[str, Sequence[int]]] = [
        ("the whole model", ()),
        ("without the group", neurons),
    ]
    cases += [(f"without {len(d):,} random neurons, draw {k + 1}", d) for k, d in enumerate(draws)]
    outcomes = []
    for name, gone in cases:
        chosen = torch.tensor(list(gone), dtype=torch.int64)
        values = torch.zeros(len(chosen))
        if kind == "mean" and means is not None:
            values = torch.from_numpy(np.asarray(means, dtype=np.float32))[chosen]
        with intervene([Replacement(tap, chosen, values)] if len(chosen) else []):
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
