"""Settings of a picture: what can't be, and what would change nothing, is told by its name."""

from __future__ import annotations

from typing import Any

import pytest

from projector.errors import SettingError
from projector.residual.particles.settings import (
    ParticleSettings,
    check_layers_shown,
    fields_read,
)


@pytest.mark.parametrize(
    ("given", "setting", "value"),
    [
        ({"particles": "atoms"}, "particles", "atoms"),
        ({"reduction": "tsne"}, "reduction", "tsne"),
        ({"fit": "all"}, "fit", "all"),
        ({"dim": 4}, "dim", 4),
        ({"neighbours": 1, "reduction": "umap"}, "neighbours", 1),
        ({"n_lines": -1}, "n_lines", -1),
        ({"n_lines": 51}, "n_lines", 51),
        ({"seed": -1}, "seed", -1),
        ({"layers": ()}, "layers", "()"),
        ({"n_particles": 1, "particles": "autoencoder"}, "n_particles", 1),
        ({"n_pairs": 19}, "n_pairs", 19),
        ({"n_pairs": 10**9}, "n_pairs", 10**9),
        # Of another type.
        ({"layers": 5}, "layers", 5),
        ({"layers": "0-2"}, "layers", "0-2"),
        ({"layers": [0.5]}, "layers", "[0.5]"),
        ({"max_tokens": "x"}, "max_tokens", "x"),
        ({"n_lines": 2.5}, "n_lines", 2.5),
        ({"n_lines": True}, "n_lines", True),
        ({"n_lines": None}, "n_lines", "None"),
        ({"per_layer": "no"}, "per_layer", "no"),
        ({"dim": 3.0}, "dim", 3.0),
        ({"corpus": 3}, "corpus", 3),
        ({"autoencoder": 3}, "autoencoder", 3),
        # What would change nothing.
        ({"neighbours": 30}, "neighbours", 30),
        ({"corpus": "stdlib"}, "corpus", "stdlib"),
        ({"n_particles": 64}, "n_particles", 64),
        ({"keep_outliers": True, "particles": "autoencoder"}, "keep_outliers", True),
        ({"n_groups": 4}, "n_groups", 4),
        ({"steps": 4, "particles": "contributions"}, "steps", 4),
        ({"steps": 4, "particles": "autoencoder", "autoencoder": "x"}, "steps", 4),
        ({"n_groups": 4, "particles": "contributions", "projection": "x"}, "n_groups", 4),
        # What can't go together.
        ({"fit": "corpus", "reduction": "stress"}, "fit", "corpus"),
        ({"fit": "corpus", "per_layer": True}, "fit", "corpus"),
        ({"fit": "corpus", "particles": "autoencoder"}, "fit", "corpus"),
    ],
)
def test_a_wrong_setting_is_named(given: dict[str, Any], setting: str, value: Any) -> None:
    with pytest.raises(SettingError) as caught:
        ParticleSettings(**given)
    assert (caught.value.setting, caught.value.value) == (setting, value)


def test_the_reduction_follows_the_particles() -> None:
    assert ParticleSettings().reduction == "pca"
    assert ParticleSettings(particles="autoencoder").reduction == "umap"
    assert ParticleSettings(particles="autoencoder", reduction="pca").reduction == "pca"
    # What settings were made of makes the same ones again.
    made = ParticleSettings(particles="contributions", layers=(3, 1, 1))
    assert ParticleSettings(**vars(made)) == made
    assert made.layers == (1, 3)


def test_faces_are_told_which_settings_have_an_effect() -> None:
    assert "neighbours" not in fields_read("tokens", "pca")
    assert "neighbours" in fields_read("tokens", "umap")
    assert {"corpus", "max_tokens"} <= fields_read("tokens", "pca", "corpus")
    assert {"width", "steps", "corpus"} <= fields_read("autoencoder", "umap")
    assert "width" not in fields_read("autoencoder", "umap", has_autoencoder=True)


def test_no_path_is_among_the_facts() -> None:
    made = ParticleSettings(fit="corpus", corpus="/secret/place/text.txt")
    assert made.facts()["corpus"] == "text.txt"
    saved = ParticleSettings(particles="autoencoder", autoencoder="/secret/place")  # type: ignore[arg-type]
    assert "secret" not in str(saved.facts())


def test_layers_are_those_of_the_model() -> None:
    check_layers_shown((0, 5), 6)
    check_layers_shown((50,), None)
    with pytest.raises(SettingError) as caught:
        check_layers_shown((0, 6), 6)
    assert (caught.value.setting, caught.value.value) == ("layers", 6)
