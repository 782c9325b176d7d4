"""All layers of a token, of one model, of two and of several."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import projector
from projector.bundled.train import train_tokenizer
from projector.errors import SettingError, UserError
from projector.model.loading import LoadedModel
from projector.residual.layer_image.report import layer_image
from projector.residual.layer_image.settings import ImageSettings
from projector.residual.subject import Subject
from tests.families import N_HIDDEN, N_LAYERS, N_VOCABULARY, build

PROMPT = "kalo miten raso vel"


@pytest.fixture
def subject(tokenizer: object) -> Callable[..., Subject]:
    def make(family: str, name: str = "first", tokens: object = tokenizer) -> Subject:
        return Subject(LoadedModel(build(family).eval(), tokens, name, name))

    return make


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "bert"])
def test_the_states_are_those_that_the_model_gives(
    family: str, subject: Callable[..., Subject]
) -> None:
    found = subject(family)
    ids = found.ids_of(PROMPT)
    with torch.no_grad():
        given = found.model(**found.inputs(ids), output_hidden_states=True).hidden_states
    image = layer_image(found, PROMPT, token=2).image
    assert image.shape == (N_LAYERS + 1, N_HIDDEN)
    # Of a causal model's last state, Transformers gives what the final norm makes of it.
    for i, each in enumerate(given[:-1]):
        np.testing.assert_allclose(image.vectors[i], each[0, 2].numpy(), atol=1e-5)


def test_a_mean_leaves_outliers_out_unless_asked(
    subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = subject("llama")
    ids = found.ids_of(PROMPT)
    with torch.no_grad():
        table = found.model.get_input_embeddings().weight
        table[ids[1]] *= 100
    each = np.stack([layer_image(found, ids, token=i).image.vectors for i in range(len(ids))])
    mean = layer_image(found, ids, token="mean")
    assert [token.position for token in mean.left_out] == [1]
    others = [i for i in range(len(ids)) if i != 1]
    np.testing.assert_allclose(mean.image.vectors, each[others].mean(axis=0), atol=1e-5)
    assert f"{len(others)} tokens" in mean.image.token
    whole = layer_image(found, ids, token="mean", keep_outliers=True)
    np.testing.assert_allclose(whole.image.vectors, each.mean(axis=0), atol=1e-4)


def test_a_model_against_itself_differs_by_nothing(subject: Callable[..., Subject]) -> None:
    found = layer_image(
        subject("llama"), PROMPT, against="other", load=lambda name: subject("llama", name)
    )
    assert found.difference is not None
    assert found.other is not None
    assert not found.difference.vectors.any()
    assert found.hashes == ("first", "other")
    other = subject("llama", "other")
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter *= 1.5
    changed = layer_image(subject("llama"), PROMPT, against="other", load=lambda _: other)
    assert changed.difference is not None
    assert changed.other is not None
    np.testing.assert_array_equal(
        changed.difference.vectors, changed.other.vectors - changed.image.vectors
    )
    assert (changed.other.high == changed.image.high).all()


def test_checkpoints_have_one_range(subject: Callable[..., Subject]) -> None:
    def load(name: str) -> Subject:
        found = subject("llama", name)
        with torch.no_grad():
            found.model.get_input_embeddings().weight.mul_(float(name))
        return found

    found = layer_image(subject("llama"), PROMPT, checkpoints=("1", "2", "30"), load=load)
    assert [each.model for each in found.checkpoints] == ["1", "2", "30"]
    ranges = {float(each.high[0]) for each in (found.image, *found.checkpoints)}
    assert len(ranges) == 1
    content = found.as_dict()
    assert [each["sha256"] for each in content["checkpoints"]] == ["1", "2", "30"]
    assert (content["n_layers"], content["n_hidden"]) == (N_LAYERS, N_HIDDEN)


@pytest.mark.parametrize("family", ["gpt2-wide", "other tokens"])
def test_a_model_that_does_not_fit_is_refused(
    family: str, subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = subject("llama", "other")
    if family == "gpt2-wide":
        architecture = other.architecture
        object.__setattr__(architecture, "n_hidden", N_HIDDEN + 8)
    else:
        tokens = train_tokenizer(iter(["other words entirely, than those"]), N_VOCABULARY)
        other = subject("llama", "other", tokens)
    for setting, value in (("against", "other"), ("checkpoints", ("other", "other"))):
        with pytest.raises(UserError) as caught:
            layer_image(subject("llama"), PROMPT, load=lambda _: other, **{setting: value})
        assert (caught.value.setting, caught.value.value) == (setting, "other")


@pytest.mark.parametrize("token", [99, -99])
def test_a_token_beyond_the_prompt(token: int, subject: Callable[..., Subject]) -> None:
    with pytest.raises(SettingError) as caught:
        layer_image(subject("llama"), PROMPT, token=token)
    assert (caught.value.setting, caught.value.value) == ("token", token)


def test_a_prompt_of_one_token_has_an_image(subject: Callable[..., Subject]) -> None:
    for token in (0, "mean"):
        found = layer_image(subject("llama"), [5], token=token)
        assert found.image.shape == (N_LAYERS + 1, N_HIDDEN)
        assert found.as_dict()["prompt"] is None


@pytest.mark.parametrize(
    ("setting", "given"),
    [
        ("token", {"token": "first"}),
        ("quantile", {"quantile": 0.5}),
        ("range", {"range": "none"}),
        ("fold", {"fold": 0}),
        ("checkpoints", {"checkpoints": ("one",)}),
        ("checkpoints", {"checkpoints": ("one", "")}),
        ("checkpoints", {"checkpoints": ("one", "two"), "against": "three"}),
    ],
)
def test_settings_are_checked_before_a_model_is_loaded(
    setting: str, given: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(SettingError) as caught:
        ImageSettings(**given)  # type: ignore[arg-type]
    assert caught.value.setting == setting
    with pytest.raises(SettingError):
        projector.layer_image(str(tmp_path / "no model"), PROMPT, **given)


def test_rows_that_do_not_fit_are_refused(subject: Callable[..., Subject]) -> None:
    with pytest.raises(SettingError) as caught:
        layer_image(subject("llama"), PROMPT, fold=5000)
    assert caught.value.setting == "fold"
