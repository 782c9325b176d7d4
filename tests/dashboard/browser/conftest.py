"""A browser, the app on a folder of tiny models, and pages that must show no error."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, sync_playwright
from typer.testing import CliRunner

from projector.projection.projection import Projection
from pruning import saving
from pruning.terminal.cli import app as pruning_app
from tests.conftest import make_text
from tests.dashboard.browser.app import PATIENCE_S, App, Watch, serve
from tests.dashboard.conftest import SPACED, save_llama
from tests.families import build
from tests.pruning.test_preparing import fit

Checkpoint = Callable[[str], Path]
SITES = ("--sites", "mlp_post,attn_out")
EVIL_TOKEN = "<script>alert('token')</script>"
# Two folders, one in the other: a name can hold no slash.
EVIL_NAME = "<script>alert('name')</script>"
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    # WebGL is drawn in software; a plain canvas and the page around it are drawn many times faster
    # without going through it.
    "--disable-accelerated-2d-canvas",
    "--disable-gpu-compositing",
)
NO_WEBGL = ("--no-sandbox", "--disable-gpu", "--disable-3d-apis")
_SIZE = {"width": 1440, "height": 1000}


def find_chromium() -> str | None:
    """The browser that tests run in."""
    return (
        os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    )


@pytest.fixture(scope="session")
def chromium() -> str:
    found = find_chromium()
    if found is None:
        reason = "no Chromium: `make browser` installs it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    # No longer than these tests: meanwhile this thread has an event loop, which others may want.
    with sync_playwright() as found:
        yield found


@pytest.fixture(scope="package")
def browser(chromium: str, playwright: Playwright) -> Iterator[Browser]:
    opened = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def folders(
    chromium: str,
    tmp_path_factory: pytest.TempPathFactory,
    checkpoint: Checkpoint,
    tokenizer: Any,
) -> Path:
    """A root with projections of a decoder, of GPT-2 and of an encoder, and what goes with them.

    The decoder knows a token that is a script, which its corpus holds.
    """
    root = tmp_path_factory.mktemp("shown")
    (root / "seen.txt").write_text(
        f" {EVIL_TOKEN} ".join(make_text(400, seed) for seed in range(8)), encoding="utf-8"
    )
    (root / "unseen.txt").write_text(make_text(700, seed=50), encoding="utf-8")
    decoder = root / "models" / "decoder"
    model = build("qwen2")
    shutil.copytree(checkpoint("qwen2"), decoder)
    own = type(tokenizer).from_pretrained(decoder)
    own.add_tokens([EVIL_TOKEN])
    model.resize_token_embeddings(len(own))
    model.save_pretrained(decoder)
    own.save_pretrained(decoder)
    fit(decoder, root / "seen.txt", root / "decoder", *SITES)
    for family in ("gpt2", "bert"):
        shutil.copytree(checkpoint(family), root / "models" / family)
        fit(root / "models" / family, root / "seen.txt", root / family, *SITES)
    save_llama(root / "models" / "llama")
    (root / "spaced.txt").write_text(SPACED * 60, encoding="utf-8")
    fit(root / "models" / "llama", root / "spaced.txt", root / "llama", "--sites", "mlp_post")
    shutil.copytree(root / "decoder", root / EVIL_NAME)
    common = ("--projection", str(root / "decoder"), "--calibration", str(root / "seen.txt"))
    common += ("--sequences", "8")
    _prune("prune", decoder, *common, "--method", "flap", "--sparsity", "0.3", out=root / "pruned")
    _prune(
        "sweep",
        decoder,
        *(*common, "--evaluation", str(root / "unseen.txt"), "--windows", "4"),
        *("--methods", "random,flap", "--refits", "none", "--sparsities", "0.2,0.4"),
        *("--seeds", "2"),
        out=root / "report",
    )
    return root


def _prune(command: str, model: Path, *options: str, out: Path) -> None:
    arguments = [command, str(model), *options, "--out", str(out)]
    with pytest.MonkeyPatch.context() as patch:
        # That a fresh process loads what was saved is shown elsewhere, and takes seconds.
        patch.setattr(saving, "_compare", lambda *_, **__: (0.0, False))
        result = CliRunner().invoke(pruning_app, arguments)
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="package")
def app(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """The app on those folders; it opens on the decoder, with its model."""
    with serve(
        folders,
        tmp_path_factory.mktemp("served"),
        *("--projection", str(folders / "decoder")),
        *("--model", str(folders / "models" / "decoder")),
    ) as started:
        yield started


@pytest.fixture(scope="session")
def projection(folders: Path) -> Projection:
    return Projection.load(folders / "decoder")


@pytest.fixture
def watch(app: App) -> Iterator[Watch]:
    """Fails the test for any error in the browser, any request elsewhere, and any traceback."""
    n_before = app.log.stat().st_size
    found = Watch()
    yield found
    assert found.problems == []
    with app.log.open("rb") as file:
        file.seek(n_before)
        said = file.read().decode(errors="replace")
    assert "Traceback" not in said, said


@pytest.fixture
def open_page(browser: Browser, app: App, watch: Watch) -> Iterator[Callable[..., Page]]:
    """``open_page(**options)``: a page in a context of its own."""
    contexts = []

    def open_one(**options: Any) -> Page:
        context = _new_context(browser, **options)
        contexts.append(context)
        page = context.new_page()
        watch.follow(page, app.url)
        return page

    yield open_one
    for context in contexts:
        context.close()


@pytest.fixture(scope="package")
def context(browser: Browser) -> Iterator[BrowserContext]:
    """One for all tests that need none of their own: what it loaded once it has."""
    opened = _new_context(browser)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext, app: App, watch: Watch) -> Iterator[Page]:
    opened = context.new_page()
    watch.follow(opened, app.url)
    yield opened
    opened.close()


def _new_context(browser: Browser, **options: Any) -> BrowserContext:
    made = browser.new_context(**{"viewport": _SIZE, "accept_downloads": True, **options})
    made.set_default_timeout(PATIENCE_S * 1000)
    return made
