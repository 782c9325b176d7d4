"""Find blocks that attend to a sliding window only, from the attention masks that the model
uses.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from projector.model.architecture.records import Architecture
from projector.model.architecture.stream.patterns import plain_run
from projector.model.architecture.trial import trial_inputs
from projector.model.capture import Call, Tap, capture, watch_calls
from projector.model.context import longest_sequence

WINDOW = "a sliding window: tokens outside it are not attended to"
UNTRIED = "possibly a sliding window that is too long to test"
# A mask of this many tokens takes 64 MiB of float32.
_MOST_TOKENS = 4096 + 2


def find_windows(
    model: nn.Module, architecture: Architecture, layers: Sequence[int]
) -> dict[int, str]:
    """Find the blocks with a mask that hides distant tokens, and a name for that term.

    A model is skipped if its config has no window. For every other model, masks are compared for a
    sequence that is longer than the window; blocks compute nothing in that run.
    """
    named = _named_window(model)
    most = longest_sequence(model)
    if named is None or (most is not None and most <= named):
        return {}
    if named + 2 > _MOST_TOKENS:
        return dict.fromkeys(layers, UNTRIED)
    n_tokens = named + 2 if most is None else min(named + 2, most)
    blocks = {layer: architecture.blocks[layer].module for layer in layers}
    is_tuple: dict[int, bool] = {}

    def learn(layer: int, call: Call, first: Tensor, output: Any) -> None:
        is_tuple[layer] = isinstance(output, tuple)

    every = {n: block.module for n, block in enumerate(architecture.blocks)}
    with plain_run(model), watch_calls(every, learn):
        model(**trial_inputs(model, 1, 2), use_cache=False)
    found: dict[int, str] = {}

    def look(layer: int, call: Call, first: Tensor, output: Any) -> None:
        if layer in blocks and any(map(_hides, (*call.args, *call.kwargs.values()))):
            found[layer] = WINDOW

    last = {"": Tap(architecture.blocks[-1].module, "output")}
    with (
        plain_run(model),
        _passing(every, is_tuple),
        watch_calls(every, look),
        capture(last, lambda _, output: None, then_stop=True),
    ):
        model(**trial_inputs(model, 1, n_tokens), use_cache=False)
    return found


def _named_window(model: nn.Module) -> int | None:
    """The longest window that the config names, in tokens."""
    config = getattr(model, "config", None)
    text: Any = getattr(config, "get_text_config", lambda: config)()
    sizes = [
        value
        for name, value in vars(text).items()
        if "window" in name and type(value) is int and value > 0
    ]
    return max(sizes, default=None)


def _hides(value: Any) -> bool:
    """Whether a mask (…, T, T) hides a place that is not behind the one that reads."""
    if not isinstance(value, Tensor) or value.ndim != 4 or value.shape[-1] != value.shape[-2]:
        return False
    kept = value if value.dtype == torch.bool else value > -1
    # The last token's row: a causal mask alone lets it see all.
    return not bool(kept[..., -1, :].all())


@contextmanager
def _passing(blocks: dict[int, nn.Module], is_tuple: dict[int, bool]) -> Iterator[None]:
    """While open, blocks give what they are given."""
    before = {layer: vars(block).get("forward") for layer, block in blocks.items()}
    for layer, block in blocks.items():

        def give(*args: Any, as_tuple: bool = is_tuple[layer], **kwargs: Any) -> Any:
            first = next(each for each in (*args, *kwargs.values()) if isinstance(each, Tensor))
            return (first,) if as_tuple else first

        vars(block)["forward"] = give
    try:
        yield
    finally:
        for layer, block in blocks.items():
            if (own := before[layer]) is not None:
                vars(block)["forward"] = own
            else:
                del vars(block)["forward"]
