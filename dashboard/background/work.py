"""The process of a run in the background: it runs the work and writes its progress as lines.

``python -m dashboard.background.work`` reads one line of JSON, a :class:`Request`, and writes lines
of JSON: ``{"stage", "done", "total", "unit"}`` repeatedly, and finally ``{"report"}`` or
``{"error"}``. It ends when its input ends, that is, when the app has ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dashboard.background.works import WORKS, Order
from dashboard.guest import Guest
from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.loading import load_model

Say = Callable[[dict[str, Any]], None]
LOADING = "Loading the model"
# A bar that moves more often is no easier to read.
_LEAST_SECONDS = 0.1


@dataclass(frozen=True)
class Request:
    """A request: the work and the model.

    Attributes:
        work: a name in :data:`dashboard.background.works.WORKS`.
        model: see :func:`projector.model.loading.load_model`; ``device`` and ``dtype`` too.
        sha256: hash of the model's weights.
    """

    work: str
    model: str
    sha256: str
    device: str
    dtype: str
    order: Order

    def to_line(self) -> str:
        """The request as one line of JSON."""
        fields = {"work": self.work, "model": self.model, "sha256": self.sha256}
        fields |= {"device": self.device, "dtype": self.dtype}
        return json.dumps(fields | {"order": self.order.to_record()})

    @classmethod
    def of_line(cls, line: str) -> Request:
        """Read the line that :meth:`to_line` gave."""
        values = json.loads(line)
        return cls(**(values | {"order": WORKS[values["work"]].of_record(values["order"])}))


class Told:
    """A :class:`projector.progress.Progress` that writes lines of JSON."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said_at = 0.0
        self._stage: dict[str, Any] = {}

    def begin(self, stage: str, total: int | None, unit: str) -> None:
        """Begin a stage."""
        self._stage = {"stage": stage, "done": 0, "total": total, "unit": unit}
        self._tell()

    def advance(self, n: int) -> None:
        """Report ``n`` more units as done."""
        self._stage["done"] += n
        if time.monotonic() - self._said_at >= _LEAST_SECONDS:
            self._tell()

    def end(self) -> None:
        """End the stage."""

    def _tell(self) -> None:
        self._said_at = time.monotonic()
        self._say(dict(self._stage))


def work(request: Request, say: Say) -> None:
    """Load the model, do the work, and write progress and the result."""
    try:
        say({"stage": LOADING, "done": 0, "total": None, "unit": ""})
        loaded = load_model(
            request.model, device=request.device, dtype=request.dtype, with_head=True
        )
        if loaded.weights_sha256 != request.sha256:
            raise UserError(
                f"model '{request.model}' isn't this projection's model: its weights are "
                f"{loaded.weights_sha256[:12]}, not {request.sha256[:12]}; choose the right model"
            )
        subject = Guest(loaded, find_architecture(loaded.model)).subject
        report = WORKS[request.work].run(subject, request.order, Told(say))
    except UserError as error:
        say({"error": error.to_record()})
    except MemoryError:
        say({"error": UserError("out of memory: choose a smaller model").to_record()})
    else:
        say({"report": report})


def main() -> None:
    """Entry point of ``python -m dashboard.background.work``."""
    # Keep the output of libraries apart from our lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    request = Request.of_line(sys.stdin.readline())

    def end_with_app() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=end_with_app, daemon=True).start()

    def say(record: dict[str, Any]) -> None:
        print(json.dumps(record), file=out, flush=True)

    work(request, say)
    # Exit at once, because the thread that waits for the end of the input would delay the exit.
    out.close()
    os._exit(0)


if __name__ == "__main__":
    main()
