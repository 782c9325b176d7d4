"""Train an autoencoder on the hidden states of a corpus."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from projector.corpus.documents import Document
from projector.errors import SettingError, check_least, check_seed
from projector.progress import Progress, Silent
from projector.projection.provenance import model_facts, versions
from projector.residual.particles.autoencoder.artifact import Trained
from projector.residual.particles.autoencoder.evaluation import (
    Window,
    evaluate,
    principal_components,
)
from projector.residual.particles.autoencoder.gathering import LONGEST, SHORTEST, gather
from projector.residual.particles.autoencoder.model import Autoencoder
from projector.residual.particles.autoencoder.normalising import Normaliser
from projector.residual.subject import Subject

# So many steps take about two minutes of one core for a stream of 192 numbers, and about
# five minutes for one of 576.
N_PARTICLES, WIDTH, N_STEPS, MAX_TOKENS = 1024, 16, 1200, 20_000
# With more of them a step of the training takes seconds.
MOST_PARTICLES = 16_384
_LEARNING_RATE = 1e-3
_TOKENS_A_STEP = 1024
_N_WARMING = 20
_LARGEST_GRADIENT = 1.0


def train_autoencoder(
    subject: Subject | str,
    corpus: str | Iterable[Document],
    *,
    n_particles: int = N_PARTICLES,
    width: int = WIDTH,
    steps: int | None = None,
    max_tokens: int = MAX_TOKENS,
    seed: int = 0,
    progress: Progress | None = None,
) -> Trained:
    """Train an autoencoder of a model's hidden states in all frames, and test it on unseen text.

    A step uses windows of one random length from 8 to 128 tokens, in random frames. The loss is the
    mean squared error over tokens that are not outliers. The model is not changed. Equal seeds give
    equal weights on the same CPU with the same number of threads.

    Args:
        subject: a subject, or a model's name.
        corpus: see :func:`projector.corpus.sources.read_documents`; or the documents themselves.
        n_particles: K, the number of particles per sequence; at most 16,384.
        width: W, the width of a particle; at most the width of the stream.
        steps: number of steps of Adam, with a cosine decay of the learning rate to 0; None for
            1,200, 0 for no training.
        max_tokens: largest number of tokens of the corpus to train on.
        seed: seed of the weights and the batches.

    Raises:
        SettingError: for an invalid number.
        UserError: if the corpus can't be read or is too short, or a state isn't finite.
    """
    steps = N_STEPS if steps is None else steps
    _check(n_particles, width, steps, max_tokens, seed)
    subject, progress = Subject.of(subject), progress or Silent()
    gathered = gather(subject, corpus, max_tokens=max_tokens, progress=progress)
    normaliser = Normaliser.of(gathered.train)
    n_hidden = normaliser.means.shape[1]
    if width > n_hidden:
        raise SettingError(
            "width", width, "is wider than the model's stream", f"give {n_hidden} or less"
        )
    train = _windows(gathered.train, normaliser)
    held_out = _windows(gathered.held_out, normaliser)
    axes = principal_components(train)
    generator = torch.Generator().manual_seed(seed)
    network = Autoencoder(n_hidden, n_particles, width, basis=axes, generator=generator)
    train_network(network, train, steps=steps, seed=seed, progress=progress)
    evaluation = evaluate(
        network,
        train,
        held_out,
        axes=axes,
        shortest=SHORTEST,
        unseen=gathered.unseen,
        seed=seed,
        progress=progress,
    )
    facts = {
        "model": {
            **asdict(model_facts(subject.loaded, subject.architecture)),
            "n_hidden": n_hidden,
        },
        "corpus": gathered.corpus,
        "settings": {
            "n_particles": n_particles,
            "width": width,
            "steps": steps,
            "max_tokens": max_tokens,
            "seed": seed,
        },
        "notes": list(gathered.notes),
        "versions": versions(),
    }
    return Trained(network, normaliser, evaluation, facts)


def _check(n_particles: int, width: int, steps: int, max_tokens: int, seed: int) -> None:
    """Raise a SettingError for a number that no model can take."""
    check_least("n_particles", n_particles, 1)
    if n_particles > MOST_PARTICLES:
        raise SettingError(
            "n_particles", n_particles, "is too large", f"give {MOST_PARTICLES:,} or less"
        )
    check_least("width", width, 1)
    check_least("steps", steps, 0)
    check_least("max_tokens", max_tokens, 1)
    check_seed("seed", seed)


def _windows(states: list[Tensor], normaliser: Normaliser) -> list[Window]:
    """The states normalised; the list is emptied on the way, for two copies may be too many."""
    found = []
    while states:
        each = states.pop(0)
        found.append(Window(normaliser.apply(each), normaliser.is_usual(each)))
    return found


@torch.enable_grad()
def train_network(
    network: Autoencoder,
    windows: Sequence[Window],
    *,
    steps: int,
    seed: int,
    progress: Progress,
) -> None:
    """Train a network in place on windows of at least one frame; see :func:`train_autoencoder`.

    Its weights don't require gradients afterwards.
    """
    draws = np.random.default_rng(seed)
    adam = torch.optim.Adam(network.parameters(), lr=_LEARNING_RATE)
    lengths = np.array([len(each.keep) for each in windows])
    progress.begin("Training the autoencoder", steps, "steps")
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = _LEARNING_RATE * _rate(step, steps)
        states, keep = _draw(windows, lengths, draws)
        adam.zero_grad()
        loss = (network(states) - states)[keep].square().mean()
        if bool(keep.any()):
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
            adam.step()
        progress.advance(1)
    for parameter in network.parameters():
        parameter.requires_grad_(False)


def _rate(step: int, steps: int) -> float:
    """Of the largest rate: it rises in the first steps, and falls as a cosine does."""
    return min(1.0, (step + 1) / _N_WARMING) * 0.5 * (1 + math.cos(math.pi * step / steps))


def _draw(
    windows: Sequence[Window], lengths: np.ndarray, draws: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Windows of one length (B, T, H), each of a drawn frame, and which tokens count (B, T)."""
    longest = min(LONGEST, int(lengths.max()))
    n_tokens = int(draws.integers(min(SHORTEST, longest), longest + 1))
    usable = np.flatnonzero(lengths >= n_tokens)
    states, keep = [], []
    for i in draws.choice(usable, max(1, _TOKENS_A_STEP // n_tokens)):
        start = int(draws.integers(lengths[i] - n_tokens + 1))
        part = windows[i].cut(start, n_tokens)
        states.append(part.states[int(draws.integers(len(part.states)))])
        keep.append(part.keep)
    return torch.stack(states), torch.stack(keep)
