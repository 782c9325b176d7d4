"""A report of contributions: two prompts' particles in one map, partners part by part."""

from __future__ import annotations

from typing import Any

import torch

from projector.model.loading import LoadedModel
from projector.residual.particles.pairing.records import Pair
from projector.residual.particles.report import layer_time
from projector.residual.subject import Subject
from tests.families import build


def test_contributions_of_two_prompts_are_placed_by_one_map(tokenizer: Any) -> None:
    subject = Subject(LoadedModel(build("llama"), tokenizer, "tiny", ""))
    found = layer_time(
        subject, "a b c d", "a b x d", particles="contributions", n_groups=2, n_lines=2
    )
    heads = tuple(f"head 0.{head}" for head in range(4))
    assert found.parts[:6] == ("embedding", *heads, "neurons 0.0")
    assert found.as_dict()["n_particles"] == len(found.owners) == found.positions.shape[1]
    assert isinstance(found.pair, Pair)
    partners = found.tensors()["partners"].tolist()
    assert len(partners) == len(found.pair.partners) * len(found.parts) > 0
    shared = found.pair.n_beginning
    for a, b in partners:
        one, other = found.owners[a], found.owners[b]
        assert (one.part, one.prompt, other.prompt) == (other.part, 0, 1)
        if one.token < shared:
            torch.testing.assert_close(found.positions[:, a], found.positions[:, b])
    # A contribution is at the origin before it is written, and stays where it is from then on.
    born = found.born[:, None] <= torch.arange(3)[None]
    assert not found.positions[~born.T].any()
    last = found.positions[-1]
    assert torch.equal(found.positions[1][born[:, 1]], last[born[:, 1]])
