"""Every family's parts are found, and what they compute is what the model computes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
import transformers as hf
from torch import Tensor, nn

from projector.model.architecture.finding import find_architecture
from projector.model.architecture.records import Architecture
from projector.model.capture import Tap, collect
from projector.sites import SITES, default_sites
from tests.families import (
    ENCODERS,
    FAMILIES,
    MIXTURES,
    N_HIDDEN,
    N_LAYERS,
    N_NEURONS,
    N_NEURONS_OF,
    N_VOCABULARY,
    PARALLEL,
    build,
)
from tests.refused import refused, refused_naming

# Attention's output is normalised before it is added to the stream.
NORM_AFTER_ATTENTION = ("gemma2", "gemma3", "olmo2")
# Four heads of eight: wider than the stream.
ATTN_Z_WIDTH = {"qwen3": 32, "gemma2": 32, "gemma3": 32}


class Names(NamedTuple):
    """What the modules of a family are called, read off its source."""

    blocks: str
    attention_output: str
    mlp_inputs: tuple[str, ...]
    mlp_output: str
    input_axis: int = 1


_LLAMA = Names(
    "model.layers", "self_attn.o_proj", ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj"
)
_BERT = Names("", "attention.output.dense", ("intermediate.dense",), "output.dense")
_NEOX = Names("", "", ("mlp.dense_h_to_4h",), "mlp.dense_4h_to_h")
NAMES = {
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3": _LLAMA,
    "phi3": _LLAMA._replace(mlp_inputs=("mlp.gate_up_proj",)),
    "olmo2": _LLAMA,
    "gpt2": Names("transformer.h", "attn.c_proj", ("mlp.c_fc",), "mlp.c_proj", input_axis=0),
    "gpt_neox": _NEOX._replace(blocks="gpt_neox.layers", attention_output="attention.dense"),
    "opt": Names("model.decoder.layers", "self_attn.out_proj", ("fc1",), "fc2"),
    "bloom": _NEOX._replace(blocks="transformer.h", attention_output="self_attention.dense"),
    "falcon": _NEOX._replace(blocks="transformer.h", attention_output="self_attention.dense"),
    "bert": _BERT._replace(blocks="bert.encoder.layer"),
    "roberta": _BERT._replace(blocks="roberta.encoder.layer"),
}


@cache
def found(family: str) -> tuple[Any, Architecture]:
    """A model and its architecture, shared by the tests that change neither."""
    model = build(family)
    return model, find_architecture(model)


def token_ids(n_sequences: int = 2, n_tokens: int = 7) -> dict[str, Tensor]:
    # From 2 on: 0 and 1 are padding or special in some families.
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, N_VOCABULARY, (n_sequences, n_tokens), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def read(model: Any, architecture: Architecture, *sites: str) -> list[list[Tensor]]:
    """For each layer, the activations of ``sites``, one row for each token."""
    layers = architecture.choose_layers(None)
    activations = collect(model, architecture.taps(sites, layers), token_ids())
    return [[activations[layer, site].flatten(0, -2) for site in sites] for layer in layers]


def describe(model: nn.Module, architecture: Architecture) -> Any:
    """All that was found, by name, to compare with what is found at another time."""
    names = {module: name for name, module in model.named_modules()}
    return (
        architecture.is_causal,
        architecture.n_hidden,
        [
            (
                block.name,
                {site: (names[tap.module], tap.side) for site, tap in block.taps.items()},
                block.widths,
                block.missing,
                block.mlp
                and [(m.name, m.input_axis) for m in (*block.mlp.inputs, block.mlp.output)],
            )
            for block in architecture.blocks
        ],
    )


def n_hooks(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


# What is found


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_and_matrices_are_the_right_modules(family: str) -> None:
    model, architecture = found(family)
    names = NAMES[family]
    assert len(architecture.blocks) == N_LAYERS
    for layer, block in enumerate(architecture.blocks):
        prefix = f"{names.blocks}.{layer}"
        assert block.name == prefix
        assert block.module is model.get_submodule(prefix)
        assert block.attention_output is not None
        assert block.mlp is not None
        expected = {
            names.attention_output: block.attention_output,
            **dict(zip(names.mlp_inputs, block.mlp.inputs, strict=True)),
            names.mlp_output: block.mlp.output,
        }
        for name, matrix in expected.items():
            assert matrix.name == f"{prefix}.{name}"
            assert matrix.module is model.get_submodule(matrix.name)
            assert matrix.input_axis == names.input_axis
            weight = matrix.module.weight
            assert weight.shape[names.input_axis] == matrix.n_inputs
            assert weight.shape[1 - names.input_axis] == matrix.n_outputs


@pytest.mark.parametrize("family", FAMILIES)
def test_taps_are_on_the_right_modules(family: str) -> None:
    model, architecture = found(family)
    names = NAMES[family]
    for layer, block in enumerate(architecture.blocks):
        prefix = f"{names.blocks}.{layer}"
        attention = model.get_submodule(f"{prefix}.{names.attention_output}")
        output = model.get_submodule(f"{prefix}.{names.mlp_output}")
        expected = {
            "resid_pre": Tap(block.module, "input"),
            "attn_z": Tap(attention, "input"),
            "attn_out": Tap(attention, "output"),
            "mlp_post": Tap(output, "input"),
            "mlp_out": Tap(output, "output"),
            "resid_post": Tap(block.module, "output"),
        }
        # Which module reads resid_mid differs; what it reads is tested below.
        assert {site: tap for site, tap in block.taps.items() if site != "resid_mid"} == expected
        assert set(block.taps) | set(block.missing) == set(SITES)
        assert not set(block.taps) & set(block.missing)


@pytest.mark.parametrize("family", FAMILIES)
def test_direction_and_widths(family: str) -> None:
    model, architecture = found(family)
    n_neurons = N_NEURONS_OF.get(family, N_NEURONS)
    expected = {
        "resid_pre": N_HIDDEN,
        "attn_z": ATTN_Z_WIDTH.get(family, N_HIDDEN),
        "attn_out": N_HIDDEN,
        "resid_mid": N_HIDDEN,
        "mlp_post": n_neurons,
        "mlp_out": N_HIDDEN,
        "resid_post": N_HIDDEN,
    }
    if family in PARALLEL:
        del expected["resid_mid"]
    assert architecture.is_causal == (family not in ENCODERS)
    assert architecture.n_hidden == N_HIDDEN
    for block in architecture.blocks:
        assert block.widths == expected
        assert block.mlp is not None
        assert block.mlp.n_neurons == n_neurons
        assert block.mlp.fused == (family == "phi3")
        activations = collect(model, block.taps, token_ids())
        assert {site: x.shape[-1] for site, x in activations.items()} == expected


@pytest.mark.parametrize("family", ["llama", "gpt2", "bert"])
def test_a_model_without_its_head_has_the_same_blocks(family: str) -> None:
    model = build(family).base_model
    names = NAMES[family]
    blocks = names.blocks.partition(".")[2]
    last = find_architecture(model).blocks[-1]
    assert last.name == f"{blocks}.{N_LAYERS - 1}"
    assert last.mlp is not None
    assert last.mlp.output.name == f"{last.name}.{names.mlp_output}"


def _square(family: str) -> Any:
    sizes = {"vocab_size": N_VOCABULARY, "hidden_size": N_HIDDEN, "num_attention_heads": 4}
    torch.manual_seed(3)
    if family == "gpt2":
        return hf.GPT2LMHeadModel(
            hf.GPT2Config(
                vocab_size=N_VOCABULARY,
                n_embd=N_HIDDEN,
                n_inner=N_HIDDEN,
                n_layer=6,
                n_head=4,
                n_positions=64,
                bos_token_id=0,
                eos_token_id=0,
            )
        )
    if family == "llama":
        return hf.LlamaForCausalLM(
            hf.LlamaConfig(**sizes, intermediate_size=N_HIDDEN, num_hidden_layers=6)
        )
    if family == "bert":
        return hf.BertForMaskedLM(
            hf.BertConfig(**sizes, intermediate_size=N_HIDDEN, num_hidden_layers=6)
        )
    return hf.FalconForCausalLM(
        hf.FalconConfig(
            **sizes,
            ffn_hidden_size=N_HIDDEN,
            num_hidden_layers=6,
            bias=True,
            bos_token_id=0,
            eos_token_id=0,
        )
    )


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert", "falcon"])
def test_input_axis_of_square_matrices(family: str) -> None:
    # Falcon adds attention's output, in place, to what its MLP's output projection gives: an
    # attention that outweighs the MLP would hide which way that matrix goes.
    model = _square(family).eval()
    names = NAMES[family]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
            if name.endswith(f"{names.attention_output}.weight"):
                parameter.mul_(100)
    for block in find_architecture(model).blocks:
        assert block.mlp is not None
        assert block.attention_output is not None
        for matrix in (*block.mlp.inputs, block.mlp.output, block.attention_output):
            assert matrix.n_inputs == matrix.n_outputs == N_HIDDEN
            assert matrix.input_axis == names.input_axis, matrix.name


# Between attention and MLP


@pytest.mark.parametrize(
    "family", [f for f in FAMILIES if f not in (*PARALLEL, *NORM_AFTER_ATTENTION)]
)
def test_resid_mid_is_the_stream_after_attention(family: str) -> None:
    model, architecture = found(family)
    for pre, out, mid in read(model, architecture, "resid_pre", "attn_out", "resid_mid"):
        torch.testing.assert_close(mid, pre + out)


@pytest.mark.parametrize("family", NORM_AFTER_ATTENTION)
def test_resid_mid_is_the_stream_after_the_norm_of_attention(family: str) -> None:
    model, architecture = found(family)
    layers = read(model, architecture, "resid_pre", "attn_out", "resid_mid")
    for block, (pre, out, mid) in zip(architecture.blocks, layers, strict=True):
        weight = block.module.get_submodule("post_attention_layernorm").weight.detach()
        if family.startswith("gemma"):
            weight = 1 + weight
        power = out.square().mean(dim=-1, keepdim=True) + model.config.rms_norm_eps
        torch.testing.assert_close(mid, pre + weight * out / power.sqrt())
        assert not torch.allclose(mid, pre + out, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("family", PARALLEL)
def test_resid_mid_is_missing_where_attention_and_mlp_are_parallel(family: str) -> None:
    _, architecture = found(family)
    for block in architecture.blocks:
        assert "resid_mid" not in block.taps
        assert "in turn" in block.missing["resid_mid"]
    with refused("sites", "resid_mid", architecture.blocks[0].missing["resid_mid"]):
        architecture.choose_sites(("resid_mid",))


@pytest.mark.parametrize("family", PARALLEL)
def test_resid_mid_is_found_where_the_same_family_is_serial(family: str) -> None:
    model = build(family)
    config = model.config
    config.use_parallel_residual = config.parallel_attn = False
    torch.manual_seed(0)
    model = type(model)(config).eval()
    architecture = find_architecture(model)
    for pre, out, mid in read(model, architecture, "resid_pre", "attn_out", "resid_mid"):
        torch.testing.assert_close(mid, pre + out)


def test_resid_mid_is_found_where_norms_have_no_weight() -> None:
    torch.manual_seed(0)
    config = hf.OlmoConfig(
        vocab_size=N_VOCABULARY,
        hidden_size=N_HIDDEN,
        intermediate_size=N_NEURONS,
        num_hidden_layers=2,
        num_attention_heads=4,
        eos_token_id=0,
    )
    model = hf.OlmoForCausalLM(config).eval()
    architecture = find_architecture(model)
    for pre, out, mid in read(model, architecture, "resid_pre", "attn_out", "resid_mid"):
        torch.testing.assert_close(mid, pre + out)


@pytest.mark.parametrize("scale", [0.0, 100.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_hides_nothing(family: str, scale: float) -> None:
    # Trained models have a few channels that outgrow all others: what bfloat16 rounds off them is
    # more than attention adds to the rest.
    model = build(family)
    with torch.no_grad():
        model.get_input_embeddings().weight[:, 3] += scale
    model.to(torch.bfloat16)
    assert describe(model, find_architecture(model)) == describe(*found(family))


def test_a_stream_that_hides_attention_is_not_taken_for_resid_mid() -> None:
    # Here, what bfloat16 rounds off the stream is more than attention adds to it, anywhere: the
    # norm before the MLP reads the stream as it was, which is as good as what is sought.
    model = build("gpt_neox")
    with torch.no_grad():
        model.get_input_embeddings().weight.sign_().mul_(1000)
    architecture = find_architecture(model.to(torch.bfloat16))
    assert all("resid_mid" in block.missing for block in architecture.blocks)


# Mixtures of experts


@pytest.mark.parametrize("family", MIXTURES)
def test_a_mixture_offers_its_output_but_no_neurons(family: str) -> None:
    model, architecture = found(family)
    assert architecture.is_causal
    for block in architecture.blocks:
        assert block.mlp is None
        assert "mlp_post" not in block.taps
        assert "4 experts" in block.missing["mlp_post"]
        assert block.widths["mlp_out"] == N_HIDDEN
        assert block.attention_output is not None
        assert block.attention_output.name == f"{block.name}.self_attn.o_proj"
    layers = read(model, architecture, "resid_mid", "mlp_out", "resid_post")
    for block, (mid, out, post) in zip(architecture.blocks, layers, strict=True):
        norm = block.module.get_submodule("post_attention_layernorm")
        mixture = block.module.get_submodule("mlp")
        with torch.no_grad():
            torch.testing.assert_close(out, mixture(norm(mid[None]))[0])
        torch.testing.assert_close(post, mid + out)


@pytest.mark.parametrize("family", MIXTURES)
def test_choosing_sites_of_a_mixture(family: str) -> None:
    _, architecture = found(family)
    chosen, left_out = architecture.choose_sites(None)
    assert chosen == ["mlp_out", "attn_out"]
    assert set(left_out) == {"mlp_post"}
    assert "experts" in left_out["mlp_post"]
    with refused("sites", "mlp_post", left_out["mlp_post"]):
        architecture.choose_sites(("mlp_post",))


# Choosing


def test_choosing_sites() -> None:
    _, architecture = found("llama")
    assert architecture.choose_sites(None) == (list(default_sites()), {})
    # In the order asked for, each once.
    chosen, left_out = architecture.choose_sites(["resid_post", "attn_z", "resid_post"])
    assert (chosen, left_out) == (["resid_post", "attn_z"], {})
    with refused("sites", "mlp_pre", "mlp_post"):
        architecture.choose_sites(("mlp_out", "mlp_pre"))
    with refused("sites", None, "mlp_post"):
        architecture.choose_sites(())


def test_choosing_layers() -> None:
    _, architecture = found("llama")
    assert architecture.choose_layers(None) == [0, 1]
    assert architecture.choose_layers([1, 0, 1]) == [0, 1]
    assert architecture.choose_layers([1]) == [1]
    for layer in (-1, N_LAYERS):
        with refused("layers", layer, "0 to 1"):
            architecture.choose_layers([0, layer])
    with refused("layers", None, "0 to 1"):
        architecture.choose_layers([])


def test_taps_of_the_layers_and_sites_that_exist() -> None:
    _, architecture = found("mixtral")
    taps = architecture.taps(["attn_out", "mlp_post"], [1])
    assert taps == {(1, "attn_out"): architecture.blocks[1].taps["attn_out"]}


# Models that cannot be read

_SMALL = {
    "hidden_size": N_HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": N_NEURONS,
}


def _t5() -> nn.Module:
    return hf.T5ForConditionalGeneration(
        hf.T5Config(
            vocab_size=N_VOCABULARY, d_model=N_HIDDEN, d_kv=6, d_ff=40, num_layers=1, num_heads=4
        )
    )


def _vit() -> nn.Module:
    return hf.ViTModel(hf.ViTConfig(**_SMALL, image_size=32, patch_size=16))


def _resnet() -> nn.Module:
    return hf.ResNetModel(hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1]))


def _albert() -> nn.Module:
    return hf.AlbertForMaskedLM(
        hf.AlbertConfig(**_SMALL, vocab_size=N_VOCABULARY, embedding_size=16)
    )


class _NoBlocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(N_VOCABULARY, N_HIDDEN)
        self.head = nn.Linear(N_HIDDEN, N_VOCABULARY)

    def get_input_embeddings(self) -> nn.Module:
        return self.table

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.table(input_ids))


class _Breaks(_NoBlocks):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.head(self.table(input_ids))
        raise ValueError("broken\n  inside")


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (_t5, ("T5ForConditionalGeneration", "encoder-decoder")),
        (_vit, ("ViTModel", "pixel_values")),
        (_resnet, ("ResNetModel", "pixel_values")),
        (_albert, ("AlbertForMaskedLM", "block")),
        (lambda: nn.Sequential(nn.Linear(4, 4)), ("Sequential", "token embedding")),
        (_NoBlocks, ("_NoBlocks", "transformer blocks")),
        (_Breaks, ("_Breaks", "6 tokens", "broken inside")),
    ],
)
def test_models_that_cannot_be_read(make: Callable[[], nn.Module], names: tuple[str, ...]) -> None:
    model = make().train()
    model.requires_grad_(False)
    with refused_naming(*names):
        find_architecture(model)
    # A failed trial leaves the model as it was, too.
    assert n_hooks(model) == 0
    assert all(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_a_model_with_neither_attention_nor_mlp_has_the_stream_only() -> None:
    torch.manual_seed(0)
    config = hf.MambaConfig(
        vocab_size=N_VOCABULARY, hidden_size=N_HIDDEN, num_hidden_layers=2, state_size=4
    )
    architecture = find_architecture(hf.MambaForCausalLM(config))
    assert [set(block.taps) for block in architecture.blocks] == [{"resid_pre", "resid_post"}] * 2
    assert architecture.choose_sites(("resid_post",)) == (["resid_post"], {})
    with refused("sites", None, "resid_post"):
        architecture.choose_sites(None)
    with refused("sites", "mlp_post", "MLP"):
        architecture.choose_sites(("mlp_post",))
    for site in ("attn_out", "attn_z"):
        with refused("sites", site, "attention"):
            architecture.choose_sites((site,))


# The model is left as it was


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_left_as_it_was(family: str) -> None:
    model = build(family)
    # Part of it frozen and out of training, as when the rest is fine-tuned.
    model.train()
    first = model.get_submodule(f"{NAMES[family].blocks}.0")
    first.eval()
    first.requires_grad_(False)
    training = {name: module.training for name, module in model.named_modules()}
    required_grad = {name: p.requires_grad for name, p in model.named_parameters()}
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()

    architecture = find_architecture(model)

    # Dropout, had it been on, would have drawn random numbers.
    assert torch.equal(torch.get_rng_state(), random_state)
    assert {name: module.training for name, module in model.named_modules()} == training
    assert {name: p.requires_grad for name, p in model.named_parameters()} == required_grad
    assert all(parameter.grad is None for parameter in model.parameters())
    assert n_hooks(model) == 0
    after = model.state_dict()
    assert tensors.keys() == after.keys()
    assert all(torch.equal(tensors[name], after[name]) for name in tensors)
    assert describe(model, architecture) == describe(*found(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_models_and_no_grad(family: str) -> None:
    model = build(family)
    model.requires_grad_(False)
    with torch.no_grad():
        architecture = find_architecture(model)
        assert not torch.is_grad_enabled()
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert describe(model, architecture) == describe(*found(family))


# Found by structure, not by name


class _Mixer(nn.Module):
    """Attention with one head, whose matrices are called like those of an MLP."""

    def __init__(self, is_causal: bool) -> None:
        super().__init__()
        self.is_causal = is_causal
        # Registered first, though it is the last to be called.
        self.up_proj = nn.Linear(20, N_HIDDEN)
        self.fc1, self.fc2 = nn.Linear(N_HIDDEN, 20), nn.Linear(N_HIDDEN, 20)
        self.down_proj = nn.Linear(N_HIDDEN, 20)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.fc1(x), self.fc2(x), self.down_proj(x)
        return self.up_proj(F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal))


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.b, self.a = nn.Linear(N_NEURONS, N_HIDDEN), nn.Linear(N_HIDDEN, N_NEURONS)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(torch.tanh(self.a(x)))


class _Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.some = nn.ModuleList(_Pair() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        return _weigh(x, self.some)


def _weigh(x: Tensor, experts: nn.ModuleList) -> Tensor:
    shares = x[..., : len(experts)].softmax(dim=-1)
    return sum(shares[..., i, None] * expert(x) for i, expert in enumerate(experts))


class _Thing(nn.Module):
    """A block whose names are odd, or those of something else."""

    def __init__(self, is_causal: bool, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "plain":
            self.b, self.a = nn.Linear(N_NEURONS, N_HIDDEN), nn.Linear(N_HIDDEN, N_NEURONS)
        elif kind == "experts":
            self.many = _Experts()
        else:
            self.many = nn.ModuleList(_Pair() for _ in range(3))
        self.mlp = _Mixer(is_causal)
        self.n2, self.n1 = nn.LayerNorm(N_HIDDEN), nn.LayerNorm(N_HIDDEN)

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        x = x + self.mlp(self.n1(x))
        y = self.n2(x)
        if self.kind == "plain":
            return x + self.b(torch.tanh(self.a(y))), None
        return x + (self.many(y) if self.kind == "experts" else _weigh(y, self.many)), None


class _Places(nn.Module):
    """Positions, from how many there are: a module that takes no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(64, N_HIDDEN))

    def forward(self, n: int) -> Tensor:
        return self.table[:n]


class _Odd(nn.Module):
    def __init__(self, is_causal: bool = True, kind: str = "plain") -> None:
        super().__init__()
        self.config = SimpleNamespace(is_encoder_decoder=False)
        # A list with a block list's name, and more parameters than any, that is never called; and
        # one that is called, on the stream, but is smaller.
        self.layers = nn.ModuleList(nn.Linear(N_HIDDEN, 4 * N_HIDDEN**2) for _ in range(2))
        self.h = nn.ModuleList(nn.Linear(N_HIDDEN, N_HIDDEN) for _ in range(2))
        self.stuff = nn.ModuleList(_Thing(is_causal, kind) for _ in range(3))
        self.where, self.what = _Places(), nn.Embedding(N_VOCABULARY, N_HIDDEN)

    def get_input_embeddings(self) -> nn.Module:
        return self.what

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = self.what(input_ids) + self.where(input_ids.shape[1])
        for layer in self.h:
            x = layer(x)
        for thing in self.stuff:
            x, _ = thing(x)
        return x


@pytest.mark.parametrize("is_causal", [True, False])
def test_found_by_structure_not_by_name(is_causal: bool) -> None:
    torch.manual_seed(0)
    model = _Odd(is_causal).eval()
    architecture = find_architecture(model)
    assert [block.name for block in architecture.blocks] == ["stuff.0", "stuff.1", "stuff.2"]
    assert architecture.is_causal == is_causal
    assert architecture.n_hidden == N_HIDDEN
    for block, thing in zip(architecture.blocks, model.stuff, strict=True):
        assert block.taps == {
            "resid_pre": Tap(thing, "input"),
            "attn_z": Tap(thing.mlp.up_proj, "input"),
            "attn_out": Tap(thing.mlp.up_proj, "output"),
            "resid_mid": Tap(thing.n2, "input"),
            "mlp_post": Tap(thing.b, "input"),
            "mlp_out": Tap(thing.b, "output"),
            "resid_post": Tap(thing, "output"),
        }
        assert block.widths["attn_z"] == 20
        assert block.widths["mlp_post"] == N_NEURONS
        assert block.mlp is not None
        assert [matrix.module for matrix in block.mlp.inputs] == [thing.a]
        assert not block.missing
    for pre, out, mid in read(model, architecture, "resid_pre", "attn_out", "resid_mid"):
        torch.testing.assert_close(mid, pre + out)


def test_experts_in_a_list_are_a_mixture() -> None:
    model = _Odd(kind="experts").eval()
    for block, thing in zip(find_architecture(model).blocks, model.stuff, strict=True):
        assert block.mlp is None
        assert block.taps["mlp_out"] == Tap(thing.many, "output")
        assert "3 experts" in block.missing["mlp_post"]


def test_experts_that_no_module_adds_up_have_no_output() -> None:
    for block in find_architecture(_Odd(kind="loose").eval()).blocks:
        assert "attn_out" in block.taps
        assert {"mlp_post", "mlp_out"} == set(block.missing)
        assert "module" in block.missing["mlp_out"]


_NO_ATTENTION = {"vocab_size": N_VOCABULARY, "hidden_size": N_HIDDEN, "num_hidden_layers": 2}


@pytest.mark.parametrize(
    "model",
    [
        # Their mixers write to the stream as attention does, and are none.
        hf.MambaModel(hf.MambaConfig(**_NO_ATTENTION)),
        hf.Mamba2Model(
            hf.Mamba2Config(**_NO_ATTENTION, num_heads=6, head_dim=8, state_size=8, n_groups=1)
        ),
        # Attention and a stack of MLPs in a stream narrower than the block's.
        hf.MobileBertModel(
            hf.MobileBertConfig(
                **_NO_ATTENTION,
                num_attention_heads=4,
                intra_bottleneck_size=16,
                intermediate_size=N_NEURONS,
                embedding_size=N_HIDDEN,
            )
        ),
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_is_no_attention_is_not_offered_as_one(model: Any) -> None:
    block = find_architecture(model.eval()).blocks[1]
    assert set(block.taps) == {"resid_pre", "resid_post"}
    assert block.missing["attn_out"].startswith("no attention")
    assert block.missing["mlp_post"].startswith("no MLP")


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (
            hf.XLNetModel(hf.XLNetConfig(vocab_size=N_VOCABULARY, d_model=24, n_layer=2, n_head=4)),
            "position axis",
        ),
        (hf.RwkvModel(hf.RwkvConfig(**_NO_ATTENTION)), "into parts"),
    ],
    ids=["xlnet", "rwkv"],
)
def test_what_can_not_be_followed_is_refused(model: Any, names: str) -> None:
    with refused_naming(type(model).__name__, names):
        find_architecture(model.eval())


def test_a_site_that_some_layers_lack_is_told() -> None:
    config = hf.Qwen3MoeConfig(
        **_NO_ATTENTION | {"num_hidden_layers": 3},
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        intermediate_size=N_NEURONS,
        moe_intermediate_size=16,
        num_experts=4,
        num_experts_per_tok=2,
        mlp_only_layers=[1],
    )
    architecture = find_architecture(hf.Qwen3MoeModel(config).eval())
    sites, left_out = architecture.choose_sites(None)
    assert "mlp_post" in sites
    assert left_out["mlp_post"].startswith("in layers 0, 2: ")
    assert "experts" in left_out["mlp_post"]
    assert set(architecture.taps(["mlp_post"], [0, 1, 2])) == {(1, "mlp_post")}


def test_lists_that_do_not_hand_the_stream_on_are_no_blocks() -> None:
    # XLM keeps attention, norms and MLPs in lists of their own.
    model = hf.XLMModel(hf.XLMConfig(vocab_size=N_VOCABULARY, emb_dim=24, n_layers=2, n_heads=4))
    with refused_naming("XLMModel", "transformer blocks"):
        find_architecture(model.eval())
