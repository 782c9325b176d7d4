"""What is built and installed: a wheel, from a source distribution, away from the checkout."""

from __future__ import annotations

import builtins
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import tomllib
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.request import urlopen

import pytest

from projector.errors import UserError
from projector.figures.layers import film
from projector.layouts.solvers import online
from projector.model import gguf_files
from pruning.scoring import tasks

ROOT = Path(__file__).parents[1]
PACKAGES = ("dashboard", "projector", "pruning")
PATIENCE_S = 300
# Of each extra, the module that the code imports.
IMPORTED = {
    "gguf": "gguf",
    "tasks": "lm_eval",
    "tensorboard": "tensorboard",
    "video": "imageio_ffmpeg",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The source distribution, and a wheel that is built from it alone."""
    place = tmp_path_factory.mktemp("built")
    copy = place / "checkout"
    for name in PACKAGES:
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Setuptools takes tests of this name unless the manifest leaves them out.
    (copy / "tests").mkdir()
    (copy / "tests" / "test_house.py").touch()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, copy)
    archive = build(copy, "sdist")
    with tarfile.open(archive) as file:
        file.extractall(place, filter="data")
    return archive, build(place / archive.name.removesuffix(".tar.gz"), "wheel")


def build(source: Path, kind: str) -> Path:
    """What a build frontend does, with the installed setuptools."""
    program = f"from setuptools.build_meta import *; print(build_{kind}('.'))"
    # In a process: setuptools works in the current folder, and changes the interpreter.
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=source, text=True, capture_output=True, check=True
    )
    return source / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, and our dependencies."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, symlinks=True)
    programs = place / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--quiet", "install"]
    options = ["--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, str(built[1])], check=True)
    (packages,) = place.rglob("site-packages")
    # Folders of a .pth file come last, and no .pth file in them is read: what is installed here in
    # editable form isn't there.
    others = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "dependencies.pth").write_text("\n".join(others), encoding="utf-8")
    return programs


@pytest.fixture
def run(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start an installed program in an empty folder, where the checkout can't be imported."""
    monkeypatch.delenv("PYTHONPATH", raising=False)
    started: list[subprocess.Popen[str]] = []

    def start(name: str, *arguments: str) -> subprocess.Popen[str]:
        line = [str(installed / name), *arguments]
        started.append(
            subprocess.Popen(
                line, cwd=tmp_path, text=True, stdout=subprocess.PIPE, start_new_session=True
            )
        )
        return started[-1]

    yield start
    for each in started:
        with suppress(ProcessLookupError):
            os.killpg(each.pid, signal.SIGKILL)
        each.communicate()


def test_the_wheel_has_every_file_of_the_packages(built: tuple[Path, Path]) -> None:
    archive, wheel = built
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
        about = {name for name in names if ".dist-info/" in name}
        metadata = next(name for name in about if name.endswith("/METADATA"))
        told = file.read(metadata).decode()
    own = {
        path.relative_to(ROOT).as_posix()
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names - about == own
    assert any(name.endswith("/licenses/LICENSE") for name in about)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert f"\nVersion: {project['version']}\n" in told
    assert set(re.findall(r"^Provides-Extra: (\w+)$", told, re.M)) == {
        *project["optional-dependencies"]
    }
    # Each package has types, wherever it is installed.
    assert {f"{name}/py.typed" for name in PACKAGES} <= own
    with tarfile.open(archive) as source:
        inside = {name.partition("/")[2] for name in source.getnames()}
    assert {*own, "CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md"} <= inside
    assert not any(name.startswith("tests/") for name in inside)


def test_installed_programs_work_from_an_empty_folder(
    run: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    for program, command in {"projector": "tune-lens", "pruning": "sweep"}.items():
        shown, _ = run(program, "--help").communicate(timeout=PATIENCE_S)
        assert command in shown

    code = "import projector, pruning, dashboard as d; print(projector.__file__, d.__file__)"
    where, _ = run("python", "-c", code).communicate(timeout=PATIENCE_S)
    assert str(ROOT) not in where

    (tmp_path / "text.txt").write_text("def area(self):\n    return self.width\n" * 200)
    one_map = ["--layers", "0", "--sites", "mlp_out", "--dim", "2", "--max-tokens", "1000"]
    fit = ["fit", "bundled", "--corpus", "text.txt", *one_map, "--out", "map", "--json"]
    shown, _ = run("projector", *fit).communicate(timeout=PATIENCE_S)
    assert json.loads(shown)["maps"]
    assert (tmp_path / "map" / "projection.json").exists()


def test_the_installed_dashboard_serves_and_ends(
    run: Callable[..., subprocess.Popen[str]],
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    started = run("projector", "dashboard", "--port", str(port))
    answer = b""
    until = time.monotonic() + PATIENCE_S
    while not answer and started.poll() is None and time.monotonic() < until:
        with suppress(OSError), urlopen(f"http://localhost:{port}/_stcore/health") as page:
            answer = page.read()
        time.sleep(0.1)
    assert answer == b"ok"
    started.send_signal(signal.SIGINT)
    assert started.wait(PATIENCE_S) == 0
    # No process of its group is left.
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, 0)


def test_extras_bring_what_the_code_imports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra, module in IMPORTED.items():
        (declared,) = project["optional-dependencies"][extra]
        # Where one isn't installed, the next test shows what an error says.
        with suppress(PackageNotFoundError):
            version(re.split("[<>=]", declared)[0])
            assert find_spec(module) is not None, extra


def test_without_an_extra_the_error_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *given: Any) -> Any:
        if name.partition(".")[0] in IMPORTED.values():
            raise ModuleNotFoundError(name)
        return real(name, *given)

    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(online, "Accelerator", lambda **given: SimpleNamespace(log_with=[]))

    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    assert "transformer-projector[gguf]" in refusal(lambda: gguf_files.check_gguf(model))
    assert "transformer-projector[tasks]" in refusal(tasks.check_installed)
    track = lambda: online.OnlineTrainer(2, log_with="tensorboard", log_dir=tmp_path)  # noqa: E731
    assert "transformer-projector[tensorboard]" in refusal(track)
    # A film is made without it, as a GIF, and says so.
    assert film.find_ffmpeg() is None
    assert "transformer-projector[video]" in film._NO_FFMPEG


def refusal(act: Callable[[], Any]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    return str(caught.value)
