"""Folders as a user has them: tiny models, and projections of them below one root."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import transformers
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

import dashboard
from dashboard.guest import Guest
from dashboard.state.scene import Scene, usual_layout
from dashboard.state.settings import Settings
from dashboard.state.shelf import shelf
from projector.model.architecture.finding import find_architecture
from projector.model.loading import load_model
from projector.projection.projection import Projection
from tests.conftest import make_text
from tests.families import build
from tests.projector.corpus.test_pieces import sentence_piece
from tests.pruning.test_preparing import fit

Checkpoint = Callable[[str], Path]
Open = Callable[..., AppTest]
SITES = ("--sites", "mlp_post,attn_out")
DECODER, GPT2, ENCODER = "qwen2", "gpt2", "bert"


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> Iterator[None]:
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


@pytest.fixture(autouse=True)
def _main_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit puts the script it runs in the place of ``__main__`` and leaves it there.

    Processes that a later test spawns would run that script first, and die of it.
    """
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])


@pytest.fixture(scope="session")
def guest(checkpoint: Checkpoint) -> Callable[[str], Guest]:
    """``guest(family)``: a tiny model, ready to be worked with. Nobody may change it."""
    guests: dict[str, Guest] = {}

    def load(family: str) -> Guest:
        if family not in guests:
            loaded = load_model(str(checkpoint(family)), device="cpu", with_head=True)
            guests[family] = Guest(loaded, find_architecture(loaded.model))
        return guests[family]

    return load


# Words apart by spaces alone, of which a tokenizer like Llama's makes the starts of tokens.
SPACED = "the method of the self is the other of the method "


def save_llama(folder: Path) -> None:
    """A tiny model whose tokenizer marks the starts of words, as Llama's does."""
    build("llama").save_pretrained(folder)
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=sentence_piece(True), **special
    ).save_pretrained(folder)


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint, text_file: Path) -> Path:
    """A root: a projection of each family under its name, its model below ``models``, and texts.

    No test may change what is in it; see :func:`copied`.
    """
    folder = tmp_path_factory.mktemp("root")
    shutil.copy(text_file, folder / "seen.txt")
    (folder / "unseen.txt").write_text(make_text(700, seed=5), encoding="utf-8")
    for family in (DECODER, GPT2, ENCODER):
        model = Path(shutil.copytree(checkpoint(family), folder / "models" / family))
        fit(model, text_file, folder / family, *SITES)
    return folder


@pytest.fixture
def copied(root: Path, tmp_path: Path) -> Callable[..., Path]:
    """``copied(name, …)``: a root of one's own that holds these folders of :func:`root`."""
    own = tmp_path / "own"
    own.mkdir()

    def copy(*names: str) -> Path:
        for name in names:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, own / name)
            else:
                shutil.copy(source, own / name)
        return own

    return copy


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept between runs of the app is kept elsewhere, and no prompt was run yet."""
    monkeypatch.setenv("TRANSFORMER_PROJECTOR_CACHE", str(tmp_path / "cache"))
    kinds = ("run", "tokens", "frames", "text", "fact", "ablation")
    for kind in (
        *kinds,
        "lens",
        "attribution",
        "patterns",
        "heads",
        "pairs of a head",
        "token streams",
        "basis",
        "contrast",
        "contrast report",
        "layer-time",
        "layer-time data",
        "layer-time folder",
        "layer-time saved",
        "layer-time states",
        "layer image",
    ):
        shelf().forget(kind)


@pytest.fixture
def start(alone: None, monkeypatch: pytest.MonkeyPatch) -> Open:
    """``start(root, page, *arguments, **params)``: the app as a link opens it, not yet run."""

    def make(root: Path, page: str, *arguments: str, **params: object) -> AppTest:
        given = ["--root", str(root)] if root.is_dir() else []
        monkeypatch.setattr(
            sys, "argv", ["app", *given, "--device", "cpu", "--no-poles", *arguments]
        )
        script = Path(dashboard.__file__).parent / "streamlit_app.py"
        at = AppTest.from_file(script, default_timeout=120)
        # As the browser asks for a page by its address; a test can't otherwise.
        at._page_hash = calc_hash(page)
        for name, value in params.items():
            at.query_params[name] = str(value)
        return at

    return make


@pytest.fixture
def open_page(root: Path, start: Open) -> Open:
    """``open_page(page, **params)``: the same of the usual root, run once."""

    def make(page: str, **params: object) -> AppTest:
        usual: dict[str, object] = {"projection": DECODER, "layer": 1, "site": "mlp_post"}
        return start(root, page, **usual | params).run()

    return make


def make_scene(root: Path, name: str, layer: int = 0, site: str = "mlp_post") -> Scene:
    """What a page is given when a projection below a root is looked at."""
    projection = Projection.load(root / name)
    return Scene(
        settings=Settings((root,)),
        name=name,
        path=root / name,
        projection=projection,
        layer=layer,
        site=site,
        layout=usual_layout(projection),
        model_name=str(root / "models" / name),
        sha256=projection.facts.model.sha256,
    )
