"""Make correlation matrices like those of trained models, of any size, and random text."""

from __future__ import annotations

import torch
from torch import Tensor


def grouped_activations(n_neurons: int, n_tokens: int, seed: int = 0) -> Tensor:
    """(n_tokens, n_neurons) float32: groups of many sizes that have parents in common.

    A neuron follows its group more or less, or against its sign, has noise of its own, and passes a
    GELU.
    """
    generator = torch.Generator().manual_seed(seed)
    n_groups, n_parents = max(2, n_neurons // 40), 12
    parents = torch.randn(n_tokens, n_parents, generator=generator)
    mixing = torch.randn(n_parents, n_groups, generator=generator) / n_parents**0.5
    groups = 0.6 * (parents @ mixing)
    groups += 0.8 * torch.randn(n_tokens, n_groups, generator=generator)
    sizes = torch.rand(n_groups, generator=generator) ** 3 + 0.02
    group = torch.multinomial(sizes, n_neurons, replacement=True, generator=generator)
    loading = 1.6 * torch.rand(n_neurons, generator=generator)
    loading *= torch.where(torch.rand(n_neurons, generator=generator) < 0.15, -1.0, 1.0)
    noise = torch.randn(n_tokens, n_neurons, generator=generator)
    return torch.nn.functional.gelu(groups[:, group] * loading + noise)


def grouped_correlation(n_neurons: int, seed: int = 0) -> Tensor:
    """(n_neurons, n_neurons) float32, over 4,000 tokens of :func:`grouped_activations`."""
    return torch.corrcoef(grouped_activations(n_neurons, 4_000, seed).T).clamp_(-1, 1)


def made_up_texts(n_words: int, seed: int = 0, n_words_each: int = 500) -> list[str]:
    """Texts of ``n_words`` words together, out of some thousand that are made up, a few of them
    common; at least a token a word, whatever the tokenizer."""
    generator = torch.Generator().manual_seed(seed)
    letters = "aeioubdfgklmnprstvz"
    lengths = torch.randint(2, 9, (1_000,), generator=generator).tolist()
    words = [
        "".join(letters[i] for i in torch.randint(len(letters), (n,), generator=generator))
        for n in lengths
    ]
    common = 1 / torch.arange(1, len(words) + 1, dtype=torch.float64)
    chosen = torch.multinomial(common, n_words, replacement=True, generator=generator).tolist()
    return [
        " ".join(words[i] for i in chosen[first : first + n_words_each])
        for first in range(0, n_words, n_words_each)
    ]
