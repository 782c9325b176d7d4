"""A norm's form gives what the norm gives, and is linear; what is no norm has none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from projector.model.architecture.stream.norms import NormForm
from projector.model.architecture.stream.records import FrozenPath

NORMS = {
    "LayerNorm": nn.LayerNorm,
    "LayerNorm without weights": lambda n: nn.LayerNorm(n, elementwise_affine=False),
    "RMSNorm": nn.RMSNorm,
    "Llama's": LlamaRMSNorm,
    # Its weight is what is added to 1.
    "Gemma's": Gemma2RMSNorm,
}


def made(name: str, width: int) -> nn.Module:
    torch.manual_seed(0)
    norm = NORMS[name](width)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


@pytest.mark.parametrize("width", [8, 9])
@pytest.mark.parametrize("name", NORMS)
@torch.no_grad()
def test_the_form_gives_what_the_norm_gives(name: str, width: int) -> None:
    norm = made(name, width)
    form = NormForm.of(norm, width)
    assert form is not None
    assert form.centres == ("LayerNorm" in name)
    assert bool(form.bias.any()) == (name == "LayerNorm")
    x = 3 * torch.randn(2, 5, width) + 1
    y = norm(x)
    scale = form.scale(x, y)
    torch.testing.assert_close(form.apply(x, scale) + form.bias, y, rtol=1e-4, atol=1e-5)
    centred = x - x.mean(-1, keepdim=True) if form.centres else x
    expected = 1 / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(scale, expected, rtol=1e-3, atol=0)


@torch.no_grad()
def test_parts_of_a_sum_go_through_one_by_one() -> None:
    norm = made("LayerNorm", 8)
    form = NormForm.of(norm, 8)
    assert form is not None
    parts = torch.randn(3, 5, 8)
    whole = parts.sum(0)
    scale = form.scale(whole, norm(whole))
    total = form.apply(parts, scale).sum(0) + form.bias
    torch.testing.assert_close(total, norm(whole), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_direction_pulled_back_reads_before_the_norms_what_it_reads_behind_them() -> None:
    forms = [NormForm.of(made(name, 8), 8) for name in ("LayerNorm", "Gemma's")]
    known = tuple(form for form in forms if form is not None)
    assert len(known) == 2
    path = FrozenPath(known, (torch.rand(5, 1) + 0.5, torch.rand(5, 1) + 0.5), 0.3)
    x, directions = torch.randn(5, 8), torch.randn(3, 8)
    scale = path.scale()
    assert scale is not None
    torch.testing.assert_close(
        x @ path.pull(directions).T * scale, path.apply(x) @ directions.T, rtol=1e-4, atol=1e-5
    )


@torch.no_grad()
def test_a_bias_goes_through_the_norms_behind_it() -> None:
    form = NormForm.of(made("LayerNorm", 8), 8)
    assert form is not None
    path = FrozenPath((form, form), (torch.rand(5, 1), torch.rand(5, 1)), 0.3)
    x, before = torch.randn(5, 8), torch.randn(8)
    by_hand = x + before
    for scale in path.scales:
        by_hand = form.apply(by_hand, scale) + form.bias
    given = path.bias(before)
    assert given is not None
    torch.testing.assert_close(path.apply(x) + given, by_hand * 0.3, rtol=1e-4, atol=1e-5)


def test_a_norm_in_bfloat16_keeps_its_own_weights() -> None:
    norm = made("Gemma's", 8).bfloat16()
    form = NormForm.of(norm, 8)
    assert form is not None
    weight = norm.get_parameter("weight").detach().float()
    torch.testing.assert_close(form.weight, 1 + weight, rtol=1e-5, atol=1e-5)


class _Tanh(nn.Module):
    """Not linear, whatever is frozen."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:]).tanh()


@pytest.mark.parametrize(
    "module", [nn.Linear(8, 8), nn.ReLU(), nn.Tanh(), nn.GroupNorm(2, 8), _Tanh()], ids=repr
)
def test_what_is_no_such_norm_has_no_form(module: nn.Module) -> None:
    assert NormForm.of(module, 8) is None
