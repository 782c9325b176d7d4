"""Heads built by hand are found; a model that never saw a repeat has no induction heads, and the
same model trained on repeats has."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import transformers as hf

from projector.model.loading import LoadedModel
from projector.residual.heads.kinds import Heads
from projector.residual.heads.scores import score_heads
from projector.residual.subject import Subject

N_TOKENS, N_PLACES, LENGTH = 24, 48, 20
# The stream: which token, which place, which token was before.
TOKEN, PLACE, BEFORE = 0, N_TOKENS, N_TOKENS + N_PLACES
N_HIDDEN = BEFORE + N_TOKENS


def subject_of(model: Any) -> Subject:
    return Subject(LoadedModel(model.eval(), None, "by hand", ""))


def two_layers(n_hidden: int, n_heads: int, n_tokens: int) -> Any:
    torch.manual_seed(0)
    return hf.GPT2LMHeadModel(
        hf.GPT2Config(
            vocab_size=n_tokens,
            n_embd=n_hidden,
            n_inner=32,
            n_layer=2,
            n_head=n_heads,
            n_positions=N_PLACES,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


@cache
def by_hand() -> Heads:
    """Two layers of two heads: previous token and duplicate token, then induction and beginning.

    Tokens and places are unit vectors. The first head asks at place t for place t − 1 and writes
    which token is there; the induction head asks for the token that is here among those that were
    written, and copies what it finds.
    """
    model = two_layers(N_HIDDEN, 2, N_TOKENS)
    width = N_HIDDEN // 2
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ln_" not in name:
                parameter.mul_(1e-3)
        model.transformer.wte.weight.copy_(torch.eye(N_HIDDEN)[TOKEN : TOKEN + N_TOKENS])
        model.transformer.wpe.weight.copy_(torch.eye(N_HIDDEN)[PLACE : PLACE + N_PLACES])

        def connect(layer: int, head: int, part: str, start: int, values: torch.Tensor) -> None:
            """Coordinate i of a head's queries, keys or values reads ``values[:, i]`` from
            ``start`` on in the stream."""
            at = "qkv".index(part) * N_HIDDEN + head * width
            weight = model.transformer.h[layer].attn.c_attn.weight
            weight[start : start + len(values), at : at + values.shape[1]] += values

        tokens, places = torch.eye(N_TOKENS), torch.eye(N_PLACES)
        before = torch.zeros(N_PLACES, N_PLACES)
        before[torch.arange(1, N_PLACES), torch.arange(N_PLACES - 1)] = 1
        connect(0, 0, "q", PLACE, before)
        connect(0, 0, "k", PLACE, places)
        connect(0, 0, "v", TOKEN, tokens)
        connect(0, 1, "q", TOKEN, tokens)
        connect(0, 1, "k", TOKEN, tokens)
        connect(1, 0, "q", TOKEN, tokens)
        connect(1, 0, "k", BEFORE, tokens)
        connect(1, 0, "v", TOKEN, tokens)
        model.transformer.h[0].attn.c_proj.weight[:N_TOKENS, BEFORE:] += 0.3 * tokens
        model.transformer.h[1].attn.c_proj.weight[:N_TOKENS, TOKEN:PLACE] += tokens
        # The first place has a key along the first coordinate, which the bias asks for.
        connect(1, 1, "k", PLACE, 5 * places[:, :1])
        model.transformer.h[1].attn.c_attn.bias[width] = 5.0
    return score_heads(subject_of(model), n_sequences=2, length=LENGTH)


def test_heads_that_are_built_by_hand_are_found() -> None:
    found = by_hand()
    assert found.kinds == {
        "previous_token": [(0, 0)],
        "duplicate_token": [(0, 1)],
        "induction": [(1, 0)],
        "beginning": [(1, 1)],
        "copying": [(1, 0)],
        "copying_through_mlps": [(1, 0)],
    }
    assert found.rows[0].previous_token > 0.9
    assert found.rows[2].induction > 0.7
    assert (found.rows[2].copying or 0) > 0.9
    assert found.rows[3].beginning > 0.9


def test_chance_would_have_made_none_of_them() -> None:
    for expected in by_hand().expected.values():
        assert expected is not None
        assert expected < 0.2


N_TRAINED = 48


def trained(draw: Callable[[torch.Generator], torch.Tensor], n_skipped: int) -> Heads:
    """Heads of a small model after 120 steps on sequences that ``draw`` gives.

    Args:
        n_skipped: first tokens of each that are not to be predicted.
    """
    model = two_layers(32, 4, N_TRAINED)
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(120):
        ids = draw(generator)
        labels = ids.clone()
        labels[:, :n_skipped] = -100
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3
    return score_heads(subject_of(model), n_sequences=4, length=LENGTH)


def test_a_model_that_never_saw_a_repeat_has_no_induction_heads() -> None:
    """Trained on sequences of tokens that each come once; each is followed by its successor."""

    def draw(generator: torch.Generator) -> torch.Tensor:
        start = torch.randint(N_TRAINED, (16, 1), generator=generator)
        return (start + torch.arange(20) * 5) % N_TRAINED

    found = trained(draw, 0)
    assert found.kinds["induction"] == []
    assert max(row.induction for row in found.rows) < 0.2


def test_the_same_model_trained_on_repeats_has_them() -> None:
    """Random tokens, and the same once more: what comes next stands behind the token's first
    place."""

    def draw(generator: torch.Generator) -> torch.Tensor:
        order = torch.rand(16, N_TRAINED, generator=generator).argsort(1)
        return order[:, :LENGTH].repeat(1, 2)

    found = trained(draw, LENGTH)
    assert found.kinds["induction"]
    assert max(row.induction for row in found.rows) > 0.8
    assert found.expected["induction"] is not None
    assert found.expected["induction"] < 0.2
