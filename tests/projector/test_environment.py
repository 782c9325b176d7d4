"""Settings of libraries: made before they are loaded, and never against the user's own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from projector.environment import prepare_environment


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever is set here goes with the test.
    names = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT")
    more = ("HF_HUB_DISABLE_PROGRESS_BARS", "TOKENIZERS_PARALLELISM", "TRANSFORMERS_VERBOSITY")
    for name in names + more:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_waiting_threads_are_told_to_sleep() -> None:
    prepare_environment()
    assert int(os.environ["GOMP_SPINCOUNT"]) < 300_000
    assert int(os.environ["OPENBLAS_THREAD_TIMEOUT"]) < 26
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GOMP_SPINCOUNT", "7"),
        ("OMP_WAIT_POLICY", "active"),
        ("OPENBLAS_THREAD_TIMEOUT", "20"),
        ("TRANSFORMERS_VERBOSITY", "info"),
    ],
)
def test_what_the_user_has_set_stays(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    prepare_environment()
    assert os.environ[name] == value
    assert name != "OMP_WAIT_POLICY" or "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("package", ["dashboard", "benchmarks"])
def test_packages_make_them_before_any_library_is_loaded(package: str) -> None:
    """An OpenMP that is loaded already reads nothing any more."""
    check(f"import {package}")


@pytest.mark.parametrize("package", ["projector.terminal.cli", "pruning.terminal.cli"])
def test_commands_make_them_before_any_library_is_loaded(package: str) -> None:
    check(f"import {package}; sys.argv[1:] = ['--help']; {package}.app = print; {package}.main()")


def check(script: str) -> None:
    script = f"""
import os, sys
{script}
assert not {{"numpy", "torch", "transformers"}} & set(sys.modules)
assert os.environ["GOMP_SPINCOUNT"] and os.environ["TRANSFORMERS_VERBOSITY"]
assert os.environ["OPENBLAS_THREAD_TIMEOUT"]
"""
    subprocess.run([sys.executable, "-c", script], check=True)
