"""What is recorded at a site is what the model computes there."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture, Matrix
from projector.model.capture import Tap, capture, collect, kept_rows
from projector.sites import SITES
from tests.families import FAMILIES, MIXTURES, N_LAYERS, N_VOCABULARY, PARALLEL, build

LENGTHS = (9, 5, 3)
N_SKIPPED = 1
NORM_AFTER_ATTENTION = ("gemma2", "gemma3", "olmo2")
NORM_AFTER_ADDING = ("bert", "roberta")

_GELU_TANH = partial(F.gelu, approximate="tanh")
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gemma2": _GELU_TANH,
    "gemma3": _GELU_TANH,
    "gpt2": _GELU_TANH,
    "bloom": _GELU_TANH,
    "gpt_neox": F.gelu,
    "falcon": F.gelu,
    "bert": F.gelu,
    "roberta": F.gelu,
    "opt": F.relu,
}


@cache
def found(family: str) -> tuple[Any, Architecture]:
    """A model and its architecture, shared by the tests that change neither."""
    model = build(family)
    return model, find_architecture(model)


def padded_batch(model: Any) -> tuple[dict[str, Tensor], Tensor]:
    """Three sequences of different lengths, padded on the right, and which tokens count."""
    place = torch.arange(max(LENGTHS))
    mask = place < torch.tensor(LENGTHS)[:, None]
    generator = torch.Generator().manual_seed(1)
    # From 2 on: 0 and 1 are padding or special in some families.
    ids = torch.randint(2, N_VOCABULARY, mask.shape, generator=generator)
    ids[~mask] = model.config.pad_token_id or 0
    keep = mask & (place >= N_SKIPPED)
    return {"input_ids": ids, "attention_mask": mask.long()}, keep


def all_taps(architecture: Architecture) -> dict[tuple[int, str], Tap]:
    return architecture.taps(SITES, architecture.choose_layers(None))


def by_token(activation: Tensor) -> Tensor:
    return activation.reshape(-1, activation.shape[-1])


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# What is read


@pytest.mark.parametrize("family", [*FAMILIES, *MIXTURES])
def test_the_model_computes_the_same_while_it_is_read(family: str) -> None:
    model, architecture = found(family)
    inputs, _ = padded_batch(model)
    taps = all_taps(architecture)
    seen: list[tuple[int, str]] = []
    with torch.no_grad():
        before = model(**inputs).logits
        with capture(taps, lambda key, tensor: seen.append(key)):
            during = model(**inputs).logits
        after = model(**inputs).logits
    assert before.isfinite().all()
    assert torch.equal(before, during)
    assert torch.equal(before, after)
    # Each tap once, the layers in order.
    assert sorted(seen) == sorted(taps)
    assert [layer for layer, site in seen if site == "resid_pre"] == [0, 1]


def _apply(matrix: Matrix, x: Tensor) -> Tensor:
    """What the matrix gives, worked out from its weights alone."""
    module = matrix.module
    weight = module.weight.T if isinstance(module, Conv1D) else module.weight
    bias = 0 if module.bias is None else module.bias
    return (by_token(x) @ weight.T + bias).detach()


@pytest.mark.parametrize("family", FAMILIES)
def test_outputs_follow_from_what_the_projections_read(family: str) -> None:
    model, architecture = found(family)
    inputs, _ = padded_batch(model)
    activations = collect(model, all_taps(architecture), inputs)
    for layer, block in enumerate(architecture.blocks):
        assert block.mlp is not None
        assert block.attention_output is not None
        for matrix, read, written in [
            (block.mlp.output, "mlp_post", "mlp_out"),
            (block.attention_output, "attn_z", "attn_out"),
        ]:
            expected = _apply(matrix, activations[layer, read])
            torch.testing.assert_close(by_token(activations[layer, written]), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_mlp_post_is_the_activation_of_what_is_written_to_it(family: str) -> None:
    model, architecture = found(family)
    inputs, _ = padded_batch(model)
    function = ACTIVATIONS.get(family, F.silu)
    for block in architecture.blocks:
        assert block.mlp is not None
        taps = {
            "read": Tap(block.mlp.inputs[0].module, "input"),
            "mlp_post": block.taps["mlp_post"],
        }
        activations = collect(model, taps, inputs)
        written = [_apply(matrix, activations["read"]) for matrix in block.mlp.inputs]
        if block.mlp.fused:
            written = list(written[0].chunk(2, dim=-1))
        expected = function(written[0])
        for factor in written[1:]:
            expected = expected * factor
        torch.testing.assert_close(by_token(activations["mlp_post"]), expected)


@pytest.mark.parametrize("family", [*FAMILIES, *MIXTURES])
def test_the_stream_goes_from_block_to_block(family: str) -> None:
    # A model of its own: asking for hidden states leaves hooks of transformers' own behind.
    model = build(family)
    architecture = find_architecture(model)
    inputs, _ = padded_batch(model)
    activations = collect(model, all_taps(architecture), inputs)
    with torch.no_grad():
        hidden_states = model(**inputs, output_hidden_states=True).hidden_states
    for layer in range(N_LAYERS):
        assert torch.equal(activations[layer, "resid_pre"], hidden_states[layer])
    for layer in range(N_LAYERS - 1):
        post, following = activations[layer, "resid_post"], activations[layer + 1, "resid_pre"]
        assert torch.equal(post, following)


@pytest.mark.parametrize(
    "family", [f for f in (*FAMILIES, *MIXTURES) if f not in NORM_AFTER_ATTENTION]
)
def test_a_block_adds_what_attention_and_mlp_give(family: str) -> None:
    model, architecture = found(family)
    inputs, _ = padded_batch(model)
    activations = collect(model, all_taps(architecture), inputs)
    for layer, block in enumerate(architecture.blocks):
        here = {site: by_token(activations[layer, site]) for site in block.taps}
        if family in PARALLEL:
            expected = here["resid_pre"] + here["attn_out"] + here["mlp_out"]
        elif family in NORM_AFTER_ADDING:
            norms = [
                block.module.get_submodule(f"{n}.LayerNorm") for n in ("attention.output", "output")
            ]
            with torch.no_grad():
                expected = norms[1](norms[0](here["resid_mid"]) + here["mlp_out"])
        else:
            expected = here["resid_mid"] + here["mlp_out"]
        torch.testing.assert_close(here["resid_post"], expected)


class _Says(nn.Module):
    """A module that gives what it is told to, whatever it takes."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.output


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: (None, x), lambda x: {"a": 1, "b": x}])
def test_the_first_tensor_is_read(wrap: Callable[[Tensor], Any]) -> None:
    x, other = torch.randn(2, 3), torch.randn(2, 3)
    model = _Says(wrap(x))
    taps = {"in": Tap(model, "input"), "out": Tap(model, "output")}
    # By position or by keyword, the first that is a tensor.
    for args, kwargs in [((other, x), {}), ((None,), {"hidden": other, "more": x})]:
        seen: dict[str, Tensor] = {}
        with capture(taps, seen.__setitem__):
            model(*args, **kwargs)
        assert seen["in"] is other
        assert seen["out"] is x


@pytest.mark.parametrize("output", [None, "text", (1, [2]), {}])
def test_a_tap_where_no_tensor_passes(output: Any) -> None:
    model = _Says(output)
    taps = {"out": Tap(model, "output")}
    kind = type(output).__name__
    with pytest.raises(TypeError, match=rf"tensor.* {kind}$"):
        collect(model, taps, {"x": torch.ones(1)})
    with (
        pytest.raises(TypeError, match=r"tensor.* tuple$"),
        capture({"in": Tap(model, "input")}, lambda key, tensor: None),
    ):
        model(3, name="x")
    assert n_hooks(model) == 0
    seen: list[str] = []
    with capture(taps, lambda key, tensor: seen.append(key), skip_empty=True):
        assert model(torch.ones(1)) is output
    assert not seen


# What is kept of it


class _Overwrites(nn.Module):
    """A model that goes on to change both what a module took in and what it gave out."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = x.clone()
        y = self.inner(x)
        x.zero_()
        y.add_(100)
        return y


def test_later_changes_in_place_do_not_reach_what_was_collected() -> None:
    model, x = _Overwrites(), torch.randn(3, 4)
    taps = {"in": Tap(model.inner, "input"), "out": Tap(model.inner, "output")}
    activations = collect(model, taps, {"x": x})
    assert torch.equal(activations["in"], x)
    torch.testing.assert_close(activations["out"], model.inner(x).detach())


class _Notes(nn.Linear):
    """A matrix that notes whether a graph is kept while it is applied."""

    def forward(self, x: Tensor) -> Tensor:
        self.kept_graph = torch.is_grad_enabled()
        return super().forward(x)


def test_collect_keeps_no_graph_and_leaves_autograd_on() -> None:
    model = _Notes(4, 4)
    activations = collect(model, {"out": Tap(model, "output")}, {"x": torch.randn(3, 4)})
    assert not model.kept_graph
    assert not activations["out"].requires_grad
    assert torch.is_grad_enabled()


# Stopping behind the last that is read


def read_and_stop(model: Any, tap: Tap, inputs: dict[str, Tensor]) -> Tensor:
    """What passes a tap first; the model must not come to its end."""
    read: list[Tensor] = []
    outputs = []
    with torch.no_grad(), capture({0: tap}, lambda _, x: read.append(x.clone()), then_stop=True):
        outputs.append(model(**inputs))
    assert outputs == []
    assert len(read) == 1
    return read[0]


@pytest.mark.parametrize("family", [*FAMILIES, *MIXTURES])
def test_no_block_behind_the_last_that_is_read_is_run(family: str) -> None:
    model, architecture = found(family)
    inputs, _ = padded_batch(model)
    taps = all_taps(architecture)
    whole = collect(model, taps, inputs)
    n_before = n_hooks(model)
    entered: list[int] = []
    modules = [*(block.module for block in architecture.blocks), model.get_output_embeddings()]
    handles = [
        module.register_forward_pre_hook(lambda *args, i=i: entered.append(i))
        for i, module in enumerate(modules)
    ]
    try:
        for key, tap in taps.items():
            entered.clear()
            assert torch.equal(read_and_stop(model, tap, inputs), whole[key])
            assert entered == list(range(key[0] + 1))
    finally:
        for handle in handles:
            handle.remove()
    assert n_hooks(model) == n_before
    again = collect(model, taps, inputs)
    assert all(torch.equal(again[key], whole[key]) for key in taps)


def test_nothing_that_was_computed_stays_in_memory_after_a_stop() -> None:
    model, architecture = found("llama")
    inputs, _ = padded_batch(model)
    seen: list[weakref.ref[Tensor]] = []
    taps = {"first": architecture.blocks[0].taps["mlp_post"]}
    gc.disable()
    try:
        with capture(taps, lambda _, x: seen.append(weakref.ref(x)), then_stop=True):
            model(**inputs)
        assert seen[0]() is None
    finally:
        gc.enable()


def test_a_reader_within_a_reader_stops_its_own_run_alone() -> None:
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    taps = {name: {name: Tap(each, "output")} for name, each in (("a", first), ("b", second))}
    seen: list[str] = []
    with capture(taps["b"], lambda key, _: seen.append(key), then_stop=True):
        with capture(taps["a"], lambda key, _: seen.append(key), then_stop=True):
            first(torch.ones(1, 2))
            seen.append("never")
        seen.append("between")
        with capture(taps["a"], lambda key, _: seen.append(key), then_stop=True):
            second(torch.ones(1, 2))
            seen.append("never")
        seen.append("never")
    assert seen == ["a", "between", "b"]


# Hooks


def test_hooks_are_there_only_within() -> None:
    model = build("llama")
    taps = all_taps(find_architecture(model))
    with capture(taps, lambda key, tensor: None):
        assert n_hooks(model) == len(taps)
    assert n_hooks(model) == 0


def test_hooks_are_removed_after_an_error_within() -> None:
    model = build("llama")
    taps = all_taps(find_architecture(model))
    with pytest.raises(KeyError, match="caller"), capture(taps, lambda key, tensor: None):
        raise KeyError("caller")
    assert n_hooks(model) == 0


def test_hooks_are_removed_after_an_error_of_the_consumer() -> None:
    model = build("llama")
    taps = all_taps(find_architecture(model))
    inputs, _ = padded_batch(model)
    before = model(**inputs).logits
    seen: list[tuple[int, str]] = []

    def consume(key: tuple[int, str], tensor: Tensor) -> None:
        seen.append(key)
        if key == (1, "attn_out"):
            raise MemoryError("consumer")

    with pytest.raises(MemoryError, match="consumer"), capture(taps, consume):
        model(**inputs)
    assert (0, "resid_post") in seen
    assert (1, "resid_post") not in seen
    assert n_hooks(model) == 0
    assert torch.equal(model(**inputs).logits, before)


def test_hooks_are_removed_if_one_cannot_be_set() -> None:
    model = nn.Linear(2, 2)
    taps: dict[str, Any] = {"good": Tap(model, "input"), "bad": Tap(object(), "output")}  # type: ignore[arg-type]
    with pytest.raises(AttributeError), capture(taps, lambda key, tensor: None):
        raise AssertionError("unreachable")
    assert n_hooks(model) == 0


def test_hooks_of_others_stay() -> None:
    model = nn.Linear(2, 2)
    calls: list[str] = []
    model.register_forward_hook(lambda *args: calls.append("theirs"))
    with capture({"out": Tap(model, "output")}, lambda key, tensor: calls.append("ours")):
        model(torch.ones(1, 2))
    model(torch.ones(1, 2))
    assert calls == ["theirs", "ours", "theirs"]


# The tokens that count


def test_kept_rows_leaves_out_padding_and_skipped_positions() -> None:
    # Each row says where it is from: sequence and position.
    activation = torch.stack(
        torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij"), dim=-1
    )
    keep = torch.tensor([[0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0]], dtype=torch.bool)
    expected = torch.tensor([[0, 1], [0, 2], [0, 3], [1, 1], [2, 1], [2, 2]]).float()
    assert torch.equal(kept_rows(activation, keep), expected)
    assert torch.equal(kept_rows(activation.reshape(12, 2), keep), expected)
    # Not contiguous, as a family may give it.
    assert torch.equal(kept_rows(activation.mT.contiguous().mT, keep), expected)
    assert kept_rows(activation, torch.zeros_like(keep)).shape == (0, 2)


@pytest.mark.parametrize(
    "shape",
    [(3, 5, 2), (2, 4, 2), (11, 2), (3, 4, 2, 2), (4, 3, 2), (2, 6, 2), (2,)],
    ids=str,
)
def test_kept_rows_refuses_a_shape_that_does_not_fit(shape: tuple[int, ...]) -> None:
    # (4, 3, 2) holds a row for each position, but time first: they would be mixed up.
    keep = torch.ones(3, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match="3 × 4 tokens"):
        kept_rows(torch.zeros(shape), keep)


def test_kept_rows_of_a_family_that_flattens_its_batch() -> None:
    model, architecture = found("opt")
    inputs, keep = padded_batch(model)
    activations = collect(model, all_taps(architecture), inputs)
    flat, stream = activations[0, "mlp_post"], activations[0, "resid_pre"]
    assert flat.shape[0] == keep.numel()
    assert flat.ndim == 2
    assert stream.shape[:2] == keep.shape
    n_kept = sum(LENGTHS) - N_SKIPPED * len(LENGTHS)
    rows = kept_rows(flat, keep)
    assert rows.shape[0] == kept_rows(stream, keep).shape[0] == n_kept
    assert torch.equal(rows, flat.unflatten(0, keep.shape)[keep])


@pytest.mark.parametrize("family", [*FAMILIES, *MIXTURES])
def test_padding_changes_nothing_that_is_kept(family: str) -> None:
    model, architecture = found(family)
    inputs, keep = padded_batch(model)
    taps = all_taps(architecture)
    together = collect(model, taps, inputs)
    alone = [
        collect(model, taps, {name: x[i : i + 1, :length] for name, x in inputs.items()})
        for i, length in enumerate(LENGTHS)
    ]
    for key, activation in together.items():
        expected = torch.cat([by_token(one[key])[N_SKIPPED:] for one in alone])
        scale = float(expected.abs().max())
        torch.testing.assert_close(
            kept_rows(activation, keep), expected, rtol=1e-4, atol=1e-5 * scale
        )
