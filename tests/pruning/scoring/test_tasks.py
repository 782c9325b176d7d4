"""Benchmark tasks: what lm-evaluation-harness is asked, and what is read from its answer."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from pruning.scoring.tasks import TaskResult, check_installed, run_tasks
from tests.families import build
from tests.refused import refused, refused_naming

ANSWER = {
    "results": {
        "hellaswag": {
            "alias": "hellaswag",
            "acc,none": 0.25,
            "acc_stderr,none": 0.01,
            "acc_norm,none": float("nan"),
            "acc_norm_stderr,none": "N/A",
        },
        "wikitext": {"word_perplexity,none": 37.37, "word_perplexity_stderr,none": "N/A"},
    },
    "n-samples": {"hellaswag": {"original": 10042, "effective": 20}},
}


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A made-up lm_eval that keeps what it was asked; ``answer`` is what it gives or raises."""
    seen: dict[str, Any] = {"answer": ANSWER}
    package, models, huggingface = (
        ModuleType(name) for name in ("lm_eval", "lm_eval.models", "lm_eval.models.huggingface")
    )

    class HFLM:
        def __init__(self, **options: Any) -> None:
            self.options = options

    def simple_evaluate(**options: Any) -> Any:
        seen.update(options)
        if isinstance(seen["answer"], Exception):
            raise seen["answer"]
        return seen["answer"]

    huggingface.HFLM = HFLM  # type: ignore[attr-defined]
    package.simple_evaluate = simple_evaluate  # type: ignore[attr-defined]
    for module in (package, models, huggingface):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def test_the_harness_judges_the_model_in_memory(harness: dict[str, Any], tokenizer: Any) -> None:
    model = build("qwen2")
    run_tasks(model, tokenizer, ["hellaswag", "wikitext"], limit=20, batch_size=3)
    options = harness["model"].options
    assert options["pretrained"] is model
    assert options["tokenizer"] is tokenizer
    assert options["batch_size"] == 3
    assert harness["tasks"] == ["hellaswag", "wikitext"]
    assert harness["limit"] == 20


def test_all_examples_are_judged_unless_limited(harness: dict[str, Any], tokenizer: Any) -> None:
    run_tasks(build("qwen2"), tokenizer, ["hellaswag"])
    assert harness["limit"] is None


def test_every_metric_is_a_row(harness: dict[str, Any], tokenizer: Any) -> None:
    found = run_tasks(build("qwen2"), tokenizer, ["hellaswag", "wikitext"])
    assert found == (
        TaskResult("hellaswag", "acc", "none", 0.25, 0.01, 20),
        TaskResult("hellaswag", "acc_norm", "none", None, None, 20),
        TaskResult("wikitext", "word_perplexity", "none", 37.37, None, None),
    )


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (KeyError("no\nsuch task"), "KeyError: 'no"),
        (ConnectionError("no\nroute"), "ConnectionError: no route"),
        (None, "result"),
        ({"results": {}}, "result"),
    ],
)
def test_what_goes_wrong_inside_is_one_line(
    harness: dict[str, Any], tokenizer: Any, answer: Any, names: str
) -> None:
    harness["answer"] = answer
    with refused_naming("lm-evaluation-harness", names):
        run_tasks(build("qwen2"), tokenizer, ["hellaswag"])


def test_without_the_harness_it_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tokenizer: Any
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    for call in (check_installed, lambda: run_tasks(build("qwen2"), tokenizer, ["hellaswag"])):
        with refused_naming("`pip install 'transformer-projector[tasks]'`".strip("`")):
            call()


def test_settings_that_can_not_be_are_one_line(harness: dict[str, Any], tokenizer: Any) -> None:
    model = build("qwen2")
    with refused("tasks", None):
        run_tasks(model, tokenizer, [])
    with refused("limit", 0):
        run_tasks(model, tokenizer, ["hellaswag"], limit=0)
    with refused("batch_size", 0):
        run_tasks(model, tokenizer, ["hellaswag"], batch_size=0)
