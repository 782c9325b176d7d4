"""The Layer-time page: prompts are placed, runs in the background, saved folders, what is told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard.background import job as background
from dashboard.background.work import Request, Say
from dashboard.guest import Guest
from dashboard.layer_time.orders import LayerTimeOrder, run_order
from dashboard.prompts import Prompt, store
from dashboard.state.shelf import jobs
from dashboard.state.store import stored_prompts
from projector.progress import Silent
from projector.projection.projection import Projection
from projector.residual.particles.artifact import TENSOR_FILE, write_particles
from projector.residual.particles.autoencoder.artifact import Trained
from projector.residual.particles.report import layer_time
from projector.residual.particles.settings import ParticleSettings
from tests.dashboard.conftest import DECODER, ENCODER, Open
from tests.dashboard.pages import SCRIPT, ask, click, errors, link, maps_of
from tests.refused import lacking

Ordered = list[LayerTimeOrder]
TEXT, OTHER = "kalo mi tenra so", "kalo vel tenra so"


@pytest.fixture
def ordered(monkeypatch: pytest.MonkeyPatch, guest: Callable[[str], Guest]) -> Ordered:
    """What was asked for in the background; each gives at once what its prompts give usually."""
    found: Ordered = []

    def follow(request: Request, hear: Say, is_stopped: threading.Event) -> None:
        assert request.work == "layer-time"
        assert isinstance(request.order, LayerTimeOrder)
        found.append(request.order)
        usual = LayerTimeOrder(request.order.prompts, ParticleSettings())
        hear({"report": run_order(guest(DECODER).subject, usual, Silent())})

    monkeypatch.setattr(background, "follow_process", follow)
    return found


def _end(at: AppTest, root: Path) -> AppTest:
    """The page as soon as what it runs is over."""
    sha256 = Projection.load(root / DECODER).facts.model.sha256
    assert sha256 is not None
    job = jobs().running("layer-time", sha256)
    assert job is None or job.wait(60)
    return at.run()


def _told(at: AppTest) -> str:
    return " ".join(each.value.replace("\\", "") for each in (*at.info, *at.caption))


def test_two_prompts_are_placed_at_once(open_page: Open) -> None:
    at = open_page("layer-time")
    assert errors(at) == []
    assert "Type a prompt" in _told(at)
    # Nothing was typed: it says so, because the page stays as it was.
    click(at, "Run")
    assert len(errors(at)) == 1
    assert "empty" in errors(at)[0]
    ask(at, TEXT, n_new=0, other=OTHER)
    assert errors(at) == []
    # Of both prompts, each frame's figures beside their controls.
    (table,) = at.dataframe
    assert table.value["Frame"].tolist() == ["embedding", "layer 0", "layer 1"]
    assert [name for name in table.value if "chance" in name or "random" in name]
    assert {"prompt", "other"} <= link(at).keys()
    # No field but those that have an effect.
    assert "UMAP’s neighbours" not in [each.label for each in at.number_input]
    at.number_input(key="layer-time n_lines").set_value(2).run()
    at.text_input(key="layer-time layers").set_value("1").run()
    assert errors(at) == []
    assert at.dataframe[0].value["Frame"].tolist() == ["embedding", "layer 1"]
    assert at.button(key="run prompt").label == "Run"
    assert not [each for each in at.button if each.label == "Start"]


def test_numbers_travel_once_and_the_selection_is_shown(open_page: Open) -> None:
    first, second = (store(Prompt(each), stored_prompts()) for each in (TEXT, OTHER))
    at = open_page("layer-time", prompt=first, other=second, token=1)
    assert errors(at) == []
    (sent,) = maps_of(at)
    assert sent["selected"] == {"layer": 1, "rests": True, "prompt": 0, "token": 1}
    assert sent["n_frames"] == 3
    assert sent["positions"]
    at.sidebar.select_slider(key="choose layer").set_value(0).run()
    (again,) = maps_of(at)
    assert again["id"] == sent["id"]
    assert again["selected"]["layer"] == 0
    assert "positions" not in again
    assert len(json.dumps(again)) < 300
    # A token of the second prompt; and what a link says of tokens that there are not.
    at = open_page("layer-time", prompt=first, other=second, token=1, other_token=2)
    (sent,) = maps_of(at)
    assert (sent["selected"]["prompt"], sent["selected"]["token"]) == (1, 2)
    at = open_page("layer-time", prompt=first, other=second, token=999, other_token=999)
    assert errors(at) == []
    told = at.warning[0].value.replace("\\", "")
    assert "Prompt B" in told
    assert told.count("999") == 2
    assert not {"token", "other_token"} & link(at).keys()


def test_what_takes_long_runs_in_the_background(
    open_page: Open, root: Path, ordered: Ordered
) -> None:
    prompt = store(Prompt(TEXT), stored_prompts())
    at = open_page("layer-time", prompt=prompt)
    at.segmented_control(key="layer-time reduction").set_value("umap").run()
    at.number_input(key="layer-time neighbours").set_value(3).run()
    assert errors(at) == []
    # What is shown is still the one of before, and it is said of what.
    assert lacking(_told(at), "This picture", f"‘{TEXT}’", "placed by PCA") == []
    assert ordered == []
    _end(click(at, "Start"), root)
    assert errors(at) == []
    assert ordered == [
        LayerTimeOrder((Prompt(TEXT),), ParticleSettings(reduction="umap", neighbours=3))
    ]
    assert "This picture" not in _told(at)
    # It is kept: the way back and here again runs nothing.
    at.segmented_control(key="layer-time reduction").set_value("pca").run()
    at.segmented_control(key="layer-time reduction").set_value("umap").run()
    assert len(ordered) == 1
    assert "This picture" not in _told(at)
    assert at.button(key="start layer-time").disabled
    # An autoencoder's particles are placed by UMAP unless something else is asked for.
    at.segmented_control(key="layer-time particles").set_value("autoencoder").run()
    assert at.segmented_control(key="layer-time reduction").value == "umap"
    _end(click(at, "Start"), root)
    assert ordered[1].settings.particles == "autoencoder"
    at.segmented_control(key="layer-time particles").set_value("tokens").run()
    assert at.segmented_control(key="layer-time reduction").value == "pca"
    assert errors(at) == []


def test_a_run_in_the_background_says_what_runs_and_why_start_waits(
    open_page: Open, root: Path, guest: Callable[[str], Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()

    def follow(request: Request, hear: Say, is_stopped: threading.Event) -> None:
        assert isinstance(request.order, LayerTimeOrder)
        hear({"stage": "Loading UMAP", "done": 0, "total": None, "unit": ""})
        assert may_end.wait(60)
        usual = LayerTimeOrder(request.order.prompts, ParticleSettings())
        hear({"report": run_order(guest(DECODER).subject, usual, Silent())})

    monkeypatch.setattr(background, "follow_process", follow)
    at = open_page("layer-time", prompt=store(Prompt(TEXT), stored_prompts()))
    at.segmented_control(key="layer-time reduction").set_value("umap").run()
    at.number_input(key="layer-time neighbours").set_value(3).run()
    try:
        at = click(at, "Start").run()
        # A stage that has no number has its name, and no bar that would stay empty.
        (stage,) = at.status
        assert "Loading UMAP" in stage.label
        assert not at.get("progress")
        assert lacking(_told(at), "Running", f"‘{TEXT}’", "UMAP") == []
        assert "one run" in _told(at)
        # What is quick is drawn meanwhile.
        at.segmented_control(key="layer-time reduction").set_value("pca").run()
        assert errors(at) == []
        assert "one run" not in _told(at)
        assert "This picture" not in _told(at)
        assert len(maps_of(at)) == 1
        at.segmented_control(key="layer-time particles").set_value("contributions").run()
        assert at.button(key="start layer-time").disabled
        assert "one run" in _told(at)
    finally:
        may_end.set()
    assert "one run" not in _told(_end(at, root))


def test_an_autoencoder_is_used_again_and_saved(
    copied: Callable[..., Path],
    start: Open,
    guest: Callable[[str], Guest],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subject = guest(DECODER).subject
    own = copied(DECODER, "models", "seen.txt")

    def follow(request: Request, hear: Say, is_stopped: threading.Event) -> None:
        assert isinstance(request.order, LayerTimeOrder)
        hear({"report": run_order(subject, request.order, Silent())})

    monkeypatch.setattr(background, "follow_process", follow)
    at = start(
        own, "layer-time", projection=DECODER, prompt=store(Prompt(TEXT), stored_prompts())
    ).run()
    for name, value in (("particles", "autoencoder"), ("reduction", "pca")):
        at.segmented_control(key=f"layer-time {name}").set_value(value).run()
    at.text_input(key="layer-time corpus").set_value("seen.txt")
    for name, number in (("n_particles", 6), ("width", 4), ("steps", 2), ("max_tokens", 300)):
        at.number_input(key=f"layer-time {name}").set_value(number)
    at.run()
    assert "trained before" not in _told(at)
    _end(click(at, "Start"), own)
    assert errors(at) == []
    assert "trained before" not in _told(at)
    click(at, "Save the autoencoder")
    assert errors(at) == []
    (saved,) = own.glob("autoencoder-*")
    assert Trained.load(saved, subject).facts["settings"]["steps"] == 2
    assert f"saved as {saved.name}" in _told(at)
    # Another picture: it says so before and after.
    at.number_input(key="layer-time n_lines").set_value(2).run()
    assert "with the autoencoder" in _told(at)
    _end(click(at, "Start"), own)
    assert errors(at) == []
    assert "trained before" in _told(at)
    # Another training is another autoencoder; and the saved one can be chosen.
    at.number_input(key="layer-time steps").set_value(3).run()
    assert "with the autoencoder" not in _told(at)
    at.selectbox(key="layer-time autoencoder").set_value(saved.name).run()
    assert errors(at) == []
    assert not [each for each in at.number_input if each.key == "layer-time steps"]


def test_wrong_fields_are_one_line_each(open_page: Open, ordered: Ordered) -> None:
    prompt = store(Prompt(TEXT), stored_prompts())
    at = open_page("layer-time", prompt=prompt)
    for key, text, words in (
        ("layer-time layers", "99", "99"),
        ("layer-time layers", "x", "'x'"),
    ):
        at.text_input(key=key).set_value(text).run()
        (error,) = errors(at)
        assert words in error
        assert "--" not in error
    at.text_input(key="layer-time layers").set_value("").run()
    assert errors(at) == []
    at.segmented_control(key="layer-time fit").set_value("corpus").run()
    at.text_input(key="layer-time corpus").set_value("/etc/passwd").run()
    (error,) = errors(at)
    assert "/etc/passwd" in error
    # What can't be fitted on a corpus has no such field, and forgets it.
    at.segmented_control(key="layer-time reduction").set_value("stress").run()
    assert errors(at) == []
    assert not [each for each in at.segmented_control if each.key == "layer-time fit"]
    assert ordered == []


def test_a_model_without_a_head_says_why_nothing_is_predicted(open_page: Open) -> None:
    prompt = store(Prompt(TEXT), stored_prompts())
    at = open_page("layer-time", projection=ENCODER, prompt=prompt)
    assert errors(at) == []
    assert "predictions" in _told(at)
    assert at.dataframe[0].value["Frame"].tolist() == ["embedding", "layer 0", "layer 1"]


def test_the_image_is_of_the_chosen_token(open_page: Open) -> None:
    prompt = store(Prompt(TEXT), stored_prompts())
    at = open_page("layer-time", prompt=prompt, token=1)
    assert not at.get("image")
    at.session_state["layer image"] = True
    at.run()
    assert errors(at) == []
    (first,) = _images(at)
    at.segmented_control(key="layer image range").set_value("per-layer").run()
    (own,) = _images(at)
    at.segmented_control(key="layer image of").set_value("mean").run()
    (mean,) = _images(at)
    assert len({first, own, mean}) == 3
    at.query_params["token"] = "0"
    at.segmented_control(key="layer image of").set_value("token").run()
    assert errors(at) == []


def test_one_token_has_its_image_and_no_particles(open_page: Open) -> None:
    at = open_page("layer-time", prompt=store(Prompt("k"), stored_prompts()))
    (error,) = errors(at)
    assert "one token" in error
    assert "projector" not in error
    at.session_state["layer image"] = True
    at.run()
    assert len(_images(at)) == 1


def _images(at: AppTest) -> list[str]:
    """Where each picture is: another one for another picture."""
    return [each.proto.imgs[0].url for each in at.get("image")]


def test_a_saved_folder_is_shown_and_others_are_not_offered(
    copied: Callable[..., Path], start: Open, guest: Callable[[str], Guest]
) -> None:
    own = copied(DECODER, "models")
    name = "a <b>"
    write_particles(layer_time(guest(DECODER).subject, SCRIPT, TEXT), own / name)
    (own / "broken").mkdir()
    (own / "broken" / "report.json").write_text("{", encoding="utf-8")
    (own / "broken" / TENSOR_FILE).write_bytes(b"")
    at = start(own, "layer-time", projection=DECODER, layer=1, site="mlp_post").run()
    assert errors(at) == []
    at.segmented_control(key="layer-time source").set_value("saved").run()
    assert errors(at) == []
    assert at.selectbox(key="layer-time folder").options == [name]
    assert link(at)["played"] == name
    assert at.dataframe[0].value["Frame"].tolist() == ["embedding", "layer 0", "layer 1"]
    # Whoever has many folders sees of which model and of which text this one is.
    told = [each.value for each in at.code]
    assert [TEXT in each and SCRIPT in each and "Model: " in each for each in told] == [True]
    # One that is gone is told of, and the prompts are asked for.
    gone = start(own, "layer-time", projection=DECODER, played="nowhere").run()
    assert errors(gone) == []
    assert "nowhere" in gone.warning[0].value
    assert "Type a prompt" in _told(gone)
