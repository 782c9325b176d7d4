"""``pruning perplexity``, ``bench`` and ``tasks``: what they print, and how they refuse."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from click.testing import Result
from typer.testing import CliRunner

from projector.model.context import find_context
from projector.model.loading import load_model
from pruning.scoring.perplexity import score
from pruning.scoring.tasks import TaskResult
from pruning.scoring.windows import prepare
from pruning.terminal.cli import app
from tests.conftest import make_text
from tests.refused import lacking

Checkpoint = Callable[[str], Path]


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> Iterator[None]:
    """As ``main`` sets it: no bars of Transformers."""
    transformers.utils.logging.disable_progress_bar()
    yield
    transformers.utils.logging.enable_progress_bar()


def invoke(*args: object) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    # What is no exit is a traceback to the user.
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def json_of(*args: object) -> dict[str, Any]:
    """The result of a command with ``--json``: one object is all of standard output."""
    result = invoke(*args, "--json")
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    value = json.loads(result.stdout)
    assert isinstance(value, dict)
    return value


def error_of(*args: object) -> str:
    """The one line of a refusal."""
    result = invoke(*args)
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


@pytest.mark.parametrize("protocol", ["windows", "stride", "lm-eval-word"])
def test_perplexity_is_what_the_library_gives(
    checkpoint: Checkpoint, text_file: Path, protocol: str
) -> None:
    folder = checkpoint("llama")
    value = json_of("perplexity", folder, "--corpus", text_file, "--protocol", protocol)
    loaded = load_model(str(folder), device="cpu", with_head=True)
    text = prepare(
        str(text_file), loaded.tokenizer, find_context(loaded.model, loaded.tokenizer), protocol
    )
    expected = score(loaded.model, text)
    assert value["perplexity"] == pytest.approx(expected.perplexity, rel=1e-6)
    assert value["bits_per_byte"] == pytest.approx(expected.bits_per_byte, rel=1e-6)
    assert value["n_tokens"] == expected.n_tokens
    assert value["n_words"] == expected.n_words
    assert value["description"] == text.description
    assert value["n_windows"] == text.n_windows
    assert value["protocol"] == protocol
    assert value["corpus"] == "made-up.txt"
    assert value["reason"] is None


def test_perplexity_for_a_person(checkpoint: Checkpoint, text_file: Path) -> None:
    result = invoke("perplexity", checkpoint("gpt2"), "--corpus", text_file, "--max-windows", 3)
    assert result.exit_code == 0, result.output
    value = json_of("perplexity", checkpoint("gpt2"), "--corpus", text_file, "--max-windows", 3)
    assert f"{value['perplexity']:,.4f}" in result.output
    assert f"{value['bits_per_byte']:,.4f}" in result.output
    assert f"{value['n_tokens']:,} tokens" in result.output
    assert value["n_windows"] == 3
    assert value["description"] in " ".join(result.output.split())
    assert "64 tokens" in value["description"]


def test_options_reach_the_protocol(checkpoint: Checkpoint, text_file: Path) -> None:
    folder = checkpoint("qwen2")
    value = json_of(
        "perplexity", folder, "--corpus", text_file, "--protocol", "stride", "--stride", 16,
        "--max-windows", 5, "--batch-size", 2,
    )  # fmt: skip
    assert " 16" in value["description"]
    assert value["n_tokens"] == 5 * 16
    value = json_of(
        "perplexity", folder, "--corpus", text_file, "--protocol", "lm-eval-word", "--detokenize"
    )
    assert "WikiText" in value["description"]


def test_a_broken_model_gives_null_and_the_reason(
    tmp_path: Path, checkpoint: Checkpoint, text_file: Path, tokenizer: Any
) -> None:
    loaded = load_model(str(checkpoint("qwen2")), device="cpu", with_head=True)
    with torch.no_grad():
        loaded.model.lm_head.weight.fill_(math.nan)  # type: ignore[union-attr,operator]
    loaded.model.save_pretrained(tmp_path / "broken")  # type: ignore[operator]
    tokenizer.save_pretrained(tmp_path / "broken")
    value = json_of("perplexity", tmp_path / "broken", "--corpus", text_file)
    assert value["perplexity"] is None
    assert "finite" in value["reason"]
    result = invoke("perplexity", tmp_path / "broken", "--corpus", text_file)
    assert result.exit_code == 0
    assert value["reason"] in " ".join(result.output.split())


def test_perplexity_refuses_in_one_line(
    tmp_path: Path, checkpoint: Checkpoint, text_file: Path
) -> None:
    folder = checkpoint("qwen2")
    short = tmp_path / "short.txt"
    short.write_text("ka lo", encoding="utf-8")
    on = ("--corpus", text_file)
    for args, names in (
        ((folder, *on, "--protocol", "sliding"), ("--protocol 'sliding'", "gptq-2048")),
        ((folder, *on, "--protocol", "gptq-2048"), ("2,048", "64")),
        ((folder, *on, "--stride", 3), ("--stride", "--protocol windows")),
        ((folder, *on, "--protocol", "stride", "--stride", 99), ("--stride 99", "64")),
        ((folder, *on, "--max-windows", 0), ("--max-windows 0",)),
        ((folder, *on, "--batch-size", 0), ("--batch-size 0",)),
        ((folder, *on, "--detokenize"), ("--detokenize", "--protocol windows")),
        ((folder, *on, "--dtype", "float8"), ("--dtype 'float8'", "float32")),
        ((folder, "--corpus", short), ("short.txt", "64")),
        ((folder, "--corpus", tmp_path / "none.txt"), (str(tmp_path / "none.txt"), "hf:NAME")),
        ((tmp_path, *on), (f"'{tmp_path}'", "config.json")),
        ((checkpoint("bert"), *on), ("BertForMaskedLM",)),
        ((checkpoint("roberta"), *on), ("RobertaForMaskedLM",)),
    ):
        assert lacking(error_of("perplexity", *args), *names) == [], args


def test_an_error_as_json(checkpoint: Checkpoint, text_file: Path) -> None:
    result = invoke(
        "perplexity", checkpoint("qwen2"), "--corpus", text_file, "--protocol", "x", "--json"
    )
    assert result.exit_code == 2
    error = json.loads(result.stdout)
    assert (error["setting"], error["value"]) == ("protocol", "x")
    assert "--protocol 'x'" in error["error"]


def test_bench_measures_two_folders(checkpoint: Checkpoint) -> None:
    args = ("bench", checkpoint("qwen2"), checkpoint("gpt2"), "--repeats", 7)
    value = json_of(*args, "--batch-size", 2, "--sequence-length", 8)
    assert value["dense"]["name"] == "qwen2"
    assert value["pruned"]["name"] == "gpt2"
    assert value["batch_size"] == 2
    assert value["sequence_length"] == 8
    assert value["n_repeats"] == 7
    assert value["pruned"]["tokens_per_second"] > 0
    assert value["notes"] == ["Qwen2ForCausalLM against GPT2LMHeadModel"]
    result = invoke(*args)
    assert result.exit_code == 0, result.output
    for word in ("qwen2", "gpt2", "ratio", "tokens/s", "operations", "not comparable"):
        assert word in result.output


def test_bench_refuses_in_one_line(tmp_path: Path, checkpoint: Checkpoint) -> None:
    folder = checkpoint("qwen2")
    assert lacking(error_of("bench", folder, tmp_path), tmp_path, "config.json") == []
    assert str(tmp_path / "none") in error_of("bench", tmp_path / "none", folder)
    assert "--repeats 2" in error_of("bench", folder, folder, "--repeats", 2)
    line = error_of("bench", folder, folder, "--sequence-length", 65)
    assert lacking(line, "--sequence-length 65", "64") == []


def test_tasks_shows_what_the_harness_found(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def answer(model: Any, tokenizer: Any, tasks: Any, **options: Any) -> Any:
        print("what a task prints")
        asked.append((list(tasks), options))
        return (TaskResult("arc_easy", "acc", "none", 0.5, None, 20),)

    monkeypatch.setattr("pruning.scoring.tasks.check_installed", lambda: None)
    monkeypatch.setattr("pruning.scoring.tasks.run_tasks", answer)
    args = ("tasks", checkpoint("qwen2"), "--tasks", "arc_easy, piqa", "--limit", 20)
    value = json_of(*args)
    assert value["results"] == [
        {
            "task": "arc_easy",
            "metric": "acc",
            "filter": "none",
            "value": 0.5,
            "standard_error": None,
            "n_samples": 20,
        }
    ]
    assert asked == [(["arc_easy", "piqa"], {"limit": 20, "batch_size": 8})]
    result = invoke(*args)
    assert "arc_easy" in result.output
    assert "0.5000" in result.output
    assert "20 examples" in result.output


def test_no_task_is_refused_before_anything_is_loaded() -> None:
    assert lacking(error_of("tasks", "nowhere", "--tasks", " , "), "--tasks", "hellaswag") == []


def test_tasks_without_the_harness_is_one_line(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    line = error_of("tasks", checkpoint("qwen2"), "--tasks", "arc_easy")
    assert "pip install 'transformer-projector[tasks]'" in line


def test_the_command_runs_in_a_process_of_its_own(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Nothing but one object on standard output, with the libraries' own voices heard."""
    path = tmp_path / "one.txt"
    path.write_text(make_text(300), encoding="utf-8")
    command = ("perplexity", str(checkpoint("gpt2")), "--corpus", str(path), "--max-windows", "1")
    done = subprocess.run(
        [sys.executable, "-m", "pruning", *command, "--json"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert json.loads(done.stdout)["perplexity"] > 1


WIKITEXT = "wikitext-2-raw-v1"


@pytest.mark.hub
@pytest.mark.parametrize(
    ("model", "options", "expected"),
    [
        ("openai-community/gpt2", {"protocol": "stride", "stride": 1024}, 29.94),
        ("facebook/opt-125m", {"protocol": "gptq-2048"}, 27.65),
        ("Qwen/Qwen2.5-0.5B", {"protocol": "gptq-2048"}, 13.07),
    ],
)
def test_published_perplexities(model: str, options: dict[str, Any], expected: float) -> None:
    """WikiText-2's test lines, the blank ones too, joined by blank lines: one document."""
    from datasets import load_dataset

    rows = load_dataset("Salesforce/wikitext", WIKITEXT, split="test")["text"]
    loaded = load_model(model, dtype="float32", with_head=True)
    context = find_context(loaded.model, loaded.tokenizer)
    text = prepare(["\n\n".join(rows)], loaded.tokenizer, context, **options)
    assert score(loaded.model, text).perplexity == pytest.approx(expected, abs=0.02)


@pytest.mark.hub
def test_published_perplexity_per_word() -> None:
    loaded = load_model("openai-community/gpt2", dtype="float32", with_head=True)
    text = prepare(
        f"hf:EleutherAI/wikitext_document_level:{WIKITEXT}:test:page",
        loaded.tokenizer,
        find_context(loaded.model, loaded.tokenizer),
        "lm-eval-word",
        detokenize=True,
    )
    assert score(loaded.model, text).perplexity == pytest.approx(37.37, abs=0.02)
