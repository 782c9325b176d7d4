"""Directions and their controls: which rows count, and what the controls know of the sets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from projector.model.loading import LoadedModel
from projector.residual.directions.finding import (
    measure_directions,
    permuted_directions,
    read_usual_norms,
)
from projector.residual.directions.records import Split
from projector.residual.subject import Subject
from tests.families import N_HIDDEN, build
from tests.projector.residual.directions.planted import Plain, unit

N = 60


def _rows(along: Tensor, other: Tensor, *, size: float) -> tuple[Tensor, Tensor]:
    """Rows that vary along ``other`` alone, in two sets that are ``size`` apart along ``along``."""
    drawn = torch.randn(2, N, 1, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return drawn[0] * other + size * along, drawn[1] * other


def _cosines(found: Tensor, vector: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(found, vector[None], dim=1)


def test_permuted_labels_give_directions_along_which_prompts_vary() -> None:
    """They have the norm of the direction and nothing of it, however far the sets are apart."""
    along, other = unit(1), unit(2)
    other = other - (other @ along) * along
    other = other / other.norm()
    rows, vector = _rows(along, other, size=50), 50 * along
    groups = (range(N), range(N, 2 * N))
    found = permuted_directions(rows, groups, vector, 8, 3)
    torch.testing.assert_close(found.norm(dim=1), torch.full((8,), 50.0))
    assert _cosines(found, other).abs().min() > 0.999
    assert _cosines(found, along).abs().max() < 0.001
    assert len({round(float(each), 6) for each in _cosines(found, other)}) > 1
    assert torch.equal(found, permuted_directions(rows, groups, vector, 8, 3))
    # Rows of a set that do not differ give none.
    same = torch.ones(4, N_HIDDEN), torch.zeros(4, N_HIDDEN)
    assert len(permuted_directions(same, (range(4), range(4)), vector, 5, 0)) == 0


def test_labels_are_permuted_within_couples() -> None:
    """What both prompts of a couple share cancels, as in the difference of means itself."""
    shared = 100 * torch.randn(N, 1, generator=torch.Generator().manual_seed(5)) * unit(6)
    rows = _rows(unit(1), unit(2), size=1)
    groups = (range(N), range(N))
    found = permuted_directions((rows[0] + shared, rows[1] + shared), groups, unit(1), 4, 0)
    assert _cosines(found, unit(2)).abs().min() > 0.999


def test_an_outlying_row_counts_and_is_counted() -> None:
    """A direction is of the prompts that every other figure is of."""
    subject = Subject(LoadedModel(build("llama"), None, "tiny", "a" * 64))
    positive, negative = torch.ones(4, N_HIDDEN), torch.zeros(4, N_HIDDEN)
    positive[2] *= 50
    usual = dict.fromkeys([(0, "resid_post"), (1, "resid_post")], N_HIDDEN**0.5)
    sets = Plain(("a", "b", "c", "d"), ("e", "f", "g", "h"))

    def found(fit: tuple[int, ...]) -> Any:
        split = Split((), (), fit, (0, 1, 2, 3))
        rows = lambda layer, stream: (positive, negative)  # noqa: E731
        options: dict[str, Any] = {"at": "last", "keep_outliers": False, "seed": 0}
        return measure_directions(subject, sets, rows, split, usual, **options)

    every = found((0, 1, 2, 3))
    torch.testing.assert_close(every.at_layer(1), positive.mean(dim=0))
    assert (every.n_outlying_positive, every.n_outlying_negative) == (1, 0)
    assert every.facts()["sets"]["n_outlying_positive"] == 1
    assert found((0, 1, 3)).n_outlying_positive == 0


def test_one_huge_token_leaves_the_usual_norm_as_it_is(tokenizer: Any, text: str) -> None:
    """Else it would itself be within the limit, and be changed."""
    subject = Subject(LoadedModel(build("llama"), tokenizer, "tiny", "a" * 64))
    ids = [[tuple(subject.encode(" ".join(text.split()[6 * i : 6 * i + 6]))) for i in range(8)]]
    plain = read_usual_norms(subject, ids)
    first = ids[0][0][0]
    assert {each[0] for each in ids[0]} == {first}
    with torch.no_grad():
        embedding = subject.model.get_input_embeddings()
        row = torch.randn(N_HIDDEN, generator=torch.Generator().manual_seed(1))
        embedding.weight[first] = 1000 * row
    found = read_usual_norms(subject, ids)
    for key, norm in found.items():
        assert norm < 3 * plain[key]
