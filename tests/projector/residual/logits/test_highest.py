"""The highest logits, and which of equal ones come first: the same wherever a top token is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from projector.model.loading import LoadedModel
from projector.residual.attribution import attribute
from projector.residual.bigrams.paths import DIRECT, predict_alone
from projector.residual.circuits.goals import find_goal
from projector.residual.lens import run_lens
from projector.residual.logits.highest import find_highest, highest
from projector.residual.subject import Subject
from tests.families import build


def sorted_by_hand(row: Tensor, n_top: int) -> list[int]:
    return sorted(range(len(row)), key=lambda i: (-float(row[i]), i))[:n_top]


@pytest.mark.parametrize("width", [40, 320, 1003, 5000])
@pytest.mark.parametrize("n_levels", [1, 3, 40, 10**6])
def test_the_lowest_id_of_equal_ones_comes_first(width: int, n_levels: int) -> None:
    rng = np.random.default_rng(width + n_levels)
    logits = torch.from_numpy(rng.integers(0, n_levels, (6, width))).float()
    for n_top in (1, 5):
        values, ids = find_highest(logits, n_top)
        assert ids.tolist() == [sorted_by_hand(row, n_top) for row in logits]
        assert torch.equal(values, logits.gather(1, ids))
    assert highest(logits[0]) == sorted_by_hand(logits[0], 1)[0]


def test_lens_attribution_and_paths_tell_the_same_of_equal_tokens(tokenizer: Any) -> None:
    subject = Subject(LoadedModel(build("llama"), tokenizer, "llama", ""))
    ids = [0, 17, 204, 33, 9]
    head = subject.model.lm_head.weight
    with torch.no_grad():
        stream = subject.model.model(**subject.inputs(ids)).last_hidden_state[0, -1]
        for token in (250, 3, 131):
            head[token] = stream
    top = [each[1] for each in attribute(subject, ids).top]
    assert top[:3] == [3, 131, 250]
    assert attribute(subject, ids).token == 3
    assert find_goal(subject, ids).token == 3
    assert run_lens(subject, ids).top_ids[-1, -1].tolist() == top
    with torch.no_grad():
        head[:] = head[0].clone()
    assert predict_alone(subject, ids)[0].guesses[DIRECT].token == 0
