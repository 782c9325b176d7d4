"""What tests share: made-up text, a tokenizer trained on it, and tiny checkpoints."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before transformers is imported: no test reaches for a network, but for those marked hub where
# they are asked for with HUB_TESTS=1.
os.environ["HF_HUB_OFFLINE"] = "0" if os.environ.get("HUB_TESTS") == "1" else "1"
os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"]
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import numpy as np
import pytest
import torch

from tests.families import N_VOCABULARY, build

# The matrices are tiny: threads would only wait for one another.
torch.set_num_threads(1)

_SYLLABLES = ("ka", "lo", "mi", "ten", "ra", "so", "vel", "du", "pi", "nor", "esh", "ti", "gam")


def make_text(n_words: int, seed: int = 0) -> str:
    """Words of made-up syllables in sentences: the project's own text."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(_SYLLABLES, rng.integers(1, 4))) for _ in range(200)]
    weights = 1 / np.arange(1, len(words) + 1)
    chosen = rng.choice(words, n_words, p=weights / weights.sum())
    return " ".join(w + ("." if i % 12 == 11 else "") for i, w in enumerate(chosen))


def pytest_xdist_auto_num_workers() -> int:
    """One more than the cores: tests that start a process or a browser leave theirs idle."""
    return (os.cpu_count() or 1) + 1


@pytest.fixture(autouse=True)
def _fixed_seed_and_threads() -> None:
    # Whatever the test before left: with two threads, tests of a busy machine take many times as
    # long.
    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)


@pytest.fixture(scope="session")
def text() -> str:
    return make_text(4000)


@pytest.fixture(scope="session")
def text_file(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "made-up.txt"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def tokenizer(text: str) -> Any:
    """A byte-level BPE tokenizer that begins every text with ``<|endoftext|>``, id 0."""
    from projector.bundled.train import train_tokenizer

    return train_tokenizer(iter([text]), N_VOCABULARY)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: Any) -> Callable[[str], Path]:
    """``checkpoint(family)``: a folder that holds a tiny model of the family and the tokenizer."""
    folders: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in folders:
            folder = tmp_path_factory.mktemp("models") / family
            build(family).save_pretrained(folder)
            tokenizer.save_pretrained(folder)
            folders[family] = folder
        return folders[family]

    return make


def pytest_collection(session: pytest.Session) -> None:
    """Each process of several begins with other test modules: what one has compiled, and written
    beside the module, the others read."""
    number, of = (os.environ.get(f"PYTEST_XDIST_{name}") for name in ("WORKER", "WORKER_COUNT"))
    if not number or not of or int(of) < 2:
        return
    root = Path(__file__).parents[1]
    asked = [root / argument.split("::")[0] for argument in session.config.args]
    paths = sorted(path for each in asked for path in [each, *each.rglob("test_*.py")])
    start = len(paths) * int(number.removeprefix("gw")) // int(of)
    for path in paths[start:] + paths[:start]:
        # What can't be imported is told when it is collected.
        with contextlib.suppress(Exception, pytest.skip.Exception):
            if path.suffix == ".py":
                importlib.import_module(".".join(path.relative_to(root).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """What is imported stays: the garbage collector need not walk through it in every test."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = {
        "gpu": None if torch.cuda.is_available() else "no CUDA device",
        "faults": None if os.environ.get("FAULT_TESTS") == "1" else "takes minutes: FAULT_TESTS=1",
        "hub": None if os.environ["HF_HUB_OFFLINE"] == "0" else "needs the hub: HUB_TESTS=1",
        "thorough": None if os.environ.get("THOROUGH") == "1" else "takes minutes: THOROUGH=1",
    }
    for item in items:
        for marker, reason in lacking.items():
            if reason and marker in item.keywords:
                item.add_marker(pytest.mark.skip(reason=reason))
