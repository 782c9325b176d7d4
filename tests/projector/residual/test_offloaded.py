"""A model whose weights Accelerate keeps elsewhere between calls gives what it gives without."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from accelerate import cpu_offload

from projector.model.loading import LoadedModel
from projector.residual.attribution import attribute
from projector.residual.heads.report import heads
from projector.residual.heads.scores import score_heads
from projector.residual.lens import run_lens
from projector.residual.particles.report import layer_time
from projector.residual.subject import Subject
from tests.families import build

IDS = list(range(5, 17))


def both(family: str, tokenizer: Any) -> tuple[Subject, Subject]:
    models = [build(family), build(family)]
    cpu_offload(models[1], execution_device=torch.device("cpu"))
    assert all(parameter.is_meta for parameter in models[1].parameters())
    own, offloaded = (Subject(LoadedModel(each, tokenizer, family, "")) for each in models)
    return own, offloaded


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_heads_and_logits_of_an_offloaded_model_are_its_own(family: str, tokenizer: Any) -> None:
    own, offloaded = both(family, tokenizer)
    scored = [score_heads(each, n_sequences=1, length=8, n_random=2) for each in (own, offloaded)]
    assert scored[0] == scored[1]
    assert scored[1].rows[0].induction_percentile is not None
    reports = [
        heads(each, IDS, show="1.2", n_sequences=1, length=8, n_random=0).as_dict()
        for each in (own, offloaded)
    ]
    assert reports[0] == reports[1]
    assert reports[1]["virtual_heads"]["rows"]
    values = [
        [part.value for part in attribute(each, IDS, token=7).parts] for each in (own, offloaded)
    ]
    assert values[0] == pytest.approx(values[1])
    read = [run_lens(each, IDS).top_ids for each in (own, offloaded)]
    assert (read[0] == read[1]).all()
    pictures = [layer_time(each, IDS, [*IDS[:4], *IDS[5:]]) for each in (own, offloaded)]
    assert torch.equal(pictures[0].positions, pictures[1].positions)
    assert pictures[0].predictions == pictures[1].predictions
