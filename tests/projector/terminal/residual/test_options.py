"""Options of the commands about the stream: what is wrong is refused before a model is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import projector
from projector.errors import MOST_SEED, SettingError
from projector.residual.subject import Subject
from projector.terminal.cli import app

PROMPT = ("--prompt", "kalo")
NEURON = ("--layer", 0, "--neuron", 0)
HUGE = 10**25


def refused(command: str, *args: object) -> dict[str, Any]:
    """What JSON says of the error; the model is not there, so nothing else can be found first."""
    result = CliRunner().invoke(app, [command, "/no/such/model", *map(str, args), "--json"])
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    error: dict[str, Any] = json.loads(result.stdout)
    return error


@pytest.mark.parametrize("seed", [-1, MOST_SEED + 1, HUGE])
@pytest.mark.parametrize(
    "args",
    [
        ("stream", *PROMPT),
        ("heads",),
        ("neuron", *NEURON),
        ("tune-lens", "--out", "/tmp/none"),
        ("contrast", "--out", "/tmp/none"),
    ],
)
def test_a_seed_is_one_that_generators_take(args: tuple[str, ...], seed: int) -> None:
    error = refused(*args, "--seed", seed)
    assert (error["setting"], error["value"]) == ("seed", seed)


@pytest.mark.parametrize(
    ("args", "setting"),
    [
        (("lens", *PROMPT, "--top", 0), "n_top"),
        (("lens", *PROMPT, "--last", 0), "n_last"),
        (("lens", "--prompt", ""), "prompt"),
        (("attribute", *PROMPT, "--neurons", -1), "n_neurons"),
        (("attribute", *PROMPT, "--token", ""), "token"),
        (("attribute", "--prompt", ""), "prompt"),
        (("neuron", *NEURON, "--top", 0), "n_top"),
        (("neuron", *NEURON, "--shuffles", 0), "n_shuffles"),
        (("neuron", "--layer", -1, "--neuron", 0), "layer"),
        (("heads", "--show", "foo"), "show"),
        (("heads", "--sequences", 0), "n_sequences"),
        (("heads", "--repeat-length", 3), "length"),
        (("heads", "--random-heads", -1), "n_random"),
        (("heads", "--prompt", ""), "prompt"),
        (("stream", "--corpus", "stdlib", "--max-tokens", 0), "max_tokens"),
        (("stream", "--corpus", "stdlib", "--sequence-length", 1), "sequence_length"),
        (("stream", "--corpus", "stdlib", "--shuffles", 0), "n_shuffles"),
        (("stream", "--prompt", ""), "prompt"),
        (("tune-lens", "--out", "/tmp/none", "--steps", 0), "n_steps"),
    ],
)
def test_numbers_and_texts_are_checked_first(args: tuple[object, ...], setting: str) -> None:
    command, *rest = args
    assert refused(str(command), *rest)["setting"] == setting


@pytest.mark.parametrize(
    ("args", "setting"),
    [
        *((("heads", option, "1"), option[2:]) for option in ("--token", "--against")),
        (("heads", "--position", 3), "position"),
        (("heads", "--chat"), "chat"),
        (("stream", "--corpus", "stdlib", "--chat"), "chat"),
        (("stream", *PROMPT, "--max-tokens", 9), "max_tokens"),
        (("stream", *PROMPT, "--sequence-length", 9), "sequence_length"),
        (("stream", *PROMPT, "--shuffles", 3), "n_shuffles"),
        (("lens", *PROMPT, "--force"), "force"),
        (("attribute", *PROMPT, "--force"), "force"),
        (("stream", *PROMPT, "--force"), "force"),
        (("neuron", *NEURON, "--force"), "force"),
        (("heads", "--force"), "force"),
    ],
)
def test_an_option_without_effect_is_refused(args: tuple[object, ...], setting: str) -> None:
    command, *rest = args
    assert refused(str(command), *rest)["setting"] == setting


def test_python_refuses_the_same_before_a_model_is_loaded() -> None:
    calls: list[tuple[str, Callable[[], object]]] = [
        ("seed", lambda: projector.stream("/no/such", prompt="a", seed=-1)),
        ("seed", lambda: projector.heads("/no/such", seed=HUGE)),
        ("seed", lambda: projector.neuron("/no/such", 0, 0, seed=-1)),
        ("n_top", lambda: projector.neuron("/no/such", 0, 0, n_top=0)),
        ("n_top", lambda: projector.lens("/no/such", "a", n_top=0)),
        ("prompt", lambda: projector.lens("/no/such", "")),
        ("n_neurons", lambda: projector.attribute("/no/such", "a", n_neurons=-1)),
        ("show", lambda: projector.heads("/no/such", show="foo")),
        ("max_tokens", lambda: projector.stream("/no/such", corpus="stdlib", max_tokens=0)),
    ]
    for setting, call in calls:
        with pytest.raises(SettingError) as caught:
            call()
        assert caught.value.setting == setting


def test_every_python_door_takes_a_text_or_ids(checkpoint: Callable[[str], Path]) -> None:
    subject = Subject.of(str(checkpoint("llama")))
    ids = subject.encode("kalo mi ten")
    assert projector.lens(subject, ids).ids == tuple(ids)
    assert projector.attribute(subject, ids).ids == tuple(ids)
    quick: dict[str, Any] = {"n_sequences": 1, "length": 8, "n_random": 0, "show": "0.0"}
    prompt = projector.heads(subject, ids, **quick).prompt
    assert prompt is not None
    assert tuple(prompt.ids) == tuple(ids)
    text = projector.stream(subject, prompt=ids).text
    assert text is not None
    assert len(text) == len(ids)
    doors: list[Callable[[list[int]], object]] = [
        lambda wrong: projector.lens(subject, wrong),
        lambda wrong: projector.attribute(subject, wrong),
        lambda wrong: projector.heads(subject, wrong, **quick),
        lambda wrong: projector.stream(subject, prompt=wrong),
    ]
    for door in doors:
        for wrong in ([], [999999], ids * 100):
            with pytest.raises(projector.UserError, match="prompt"):
                door(wrong)
    with pytest.raises(SettingError) as caught:
        projector.lens(subject, ids, chat=True)
    assert caught.value.setting == "chat"
