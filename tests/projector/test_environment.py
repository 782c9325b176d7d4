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
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "TRANSFORMERS_VERBOSITY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_waiting_threads_are_told_to_sleep() -> None:
    prepare_environment()
    assert int(os.environ["GOMP_SPINCOUNT"]) < 300_000
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "error"


@pytest.mark.parametrize(
    ("name", "value"),
    [("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "active"), ("TRANSFORMERS_VERBOSITY", "info")],
)
def test_what_the_user_has_set_stays(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    prepare_environment()
    assert os.environ[name] == value
    assert name != "OMP_WAIT_POLICY" or "GOMP_SPINCOUNT" not in os.environ


@pytest.mark.parametrize("package", ["projector.cli", "pruning.cli", "dashboard", "benchmarks"])
def test_it_is_made_before_any_library_is_loaded(package: str) -> None:
    """An OpenMP that is loaded already reads nothing any more."""
    script = f"import sys, {package}\nassert not {{'torch', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_is_kept_and_then_handed_back() -> None:
    script = """
import re
from pathlib import Path
from projector.environment import keep_freed_memory
keep_freed_memory()
import torch
from projector.budget import give_back
def resident():
    return 1024 * int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = resident()
# Each too small to be mapped by itself.
tensors = [torch.ones(5_000_000) for _ in range(10)]
del tensors
assert resident() - before > 100_000_000, resident() - before
give_back()
assert resident() - before < 50_000_000, resident() - before
"""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
