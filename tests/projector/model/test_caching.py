"""A cache goes into a model and comes out of it under either of its names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from projector.model.caching import cache_of, with_cache
from tests.families import build


class _Old:
    def forward(self, input_ids: Any, past_key_values: Any = None) -> None: ...


class _New:
    def forward(self, input_ids: Any, cache: Any = None) -> None: ...


@pytest.mark.parametrize(("model", "name"), [(_Old(), "past_key_values"), (_New(), "cache")])
def test_it_has_the_name_that_the_model_gives_it(model: Any, name: str) -> None:
    assert with_cache(model, "kept") == {name: "kept"}
    assert cache_of(SimpleNamespace(**{name: "kept"})) == "kept"
    assert cache_of(SimpleNamespace(logits=1)) is None


@pytest.mark.filterwarnings("error::FutureWarning")
def test_a_run_continues_an_earlier_one() -> None:
    model = build("llama").eval()
    ids = torch.tensor([[1, 2, 3, 4]])
    with torch.no_grad():
        whole = model(input_ids=ids).logits[:, -1]
        first = model(input_ids=ids[:, :3], use_cache=True)
        assert cache_of(first) is not None
        rest = model(input_ids=ids[:, 3:], **with_cache(model, cache_of(first)))
    torch.testing.assert_close(rest.logits[:, -1], whole)
