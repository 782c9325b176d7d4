"""Processes of ``projector fit`` that start at once: forked from one that has its libraries."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# As the command does before Transformers is imported, whose bars would be seen.
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

# What a fit would import on the way.
import torch.distributed
import transformers.models.qwen2.modeling_qwen2
from accelerate import PartialState  # noqa: F401

import projector.fitting.pipeline
import projector.terminal.cli

# All tests of a process share one server, and it loads what the first of them names.
_PRELOAD = [
    __name__,
    "tests.projector.fitting.killing",
    transformers.models.qwen2.modeling_qwen2.__name__,
]


def server() -> Any:
    """The context whose processes are forked from the server."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOAD)
    return context


def run(arguments: list[str], code: str, environment: dict[str, str], output: Path) -> None:
    """``projector`` with these arguments, as if a launcher had started it.

    Args:
        code: is executed before.
        output: standard output goes there, errors beside it with ``.errors``.
    """
    os.environ.update(environment)
    torch.set_num_threads(1)
    for number, path in ((1, output), (2, output.with_suffix(".errors"))):
        into = os.open(path, os.O_WRONLY | os.O_CREAT)
        os.dup2(into, number)
        os.close(into)
    exec(code, {})
    sys.argv = ["projector", *arguments]
    projector.terminal.cli.main()


def start(
    folder: Path, arguments: list[str], code: str, environment: dict[str, str], name: str
) -> tuple[BaseProcess, Callable[[], tuple[int, str, str]]]:
    """One that runs beside the caller, and a function that waits for its end: exit status, output
    and errors."""
    output = folder / f"{name}.output"
    process = server().Process(target=run, args=(arguments, code, environment, output))
    process.start()

    def end() -> tuple[int, str, str]:
        process.join(240)
        assert process.exitcode is not None, "it has not ended in 240 s"
        return process.exitcode, output.read_text(), output.with_suffix(".errors").read_text()

    return process, end
