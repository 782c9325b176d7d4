"""A run in a process of its own: what it says, how it is stopped, how it fails."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from dashboard.background import job as background
from dashboard.background.job import Job, Jobs, follow_process
from dashboard.background.work import Request, Say, work
from dashboard.contrast.orders import ContrastOrder, Typed
from dashboard.guest import Guest

Records = list[dict[str, Any]]


def _request(guest: Guest, path: Path, **changes: Any) -> Request:
    lines = ["\n".join(f"{word} of {k}" for k in range(10)) for word in ("self", "method")]
    order = ContrastOrder(positive=Typed("Set A", lines[0]), negative=Typed("Set B", lines[1]))
    values: dict[str, Any] = {"sha256": guest.loaded.weights_sha256, "order": order}
    return Request("contrast", str(path), device="cpu", dtype="float32", **(values | changes))


def test_a_request_goes_through_a_line(guest: Callable[[str], Guest]) -> None:
    request = _request(guest("gpt2"), Path("somewhere"))
    line = request.to_line()
    assert "\n" not in line
    assert Request.of_line(line) == request


def test_a_process_says_how_far_it_is_and_what_came_of_it(
    guest: Callable[[str], Guest], checkpoint: Callable[[str], Path]
) -> None:
    found: Records = []
    request = _request(guest("gpt2"), checkpoint("gpt2"))
    follow_process(request, found.append, threading.Event())
    assert found[0]["stage"] == "Loading the model"
    assert any(each.get("total") and each["done"] <= each["total"] for each in found[:-1])
    report = found[-1]["report"]
    assert (report["n_positive"], report["n_negative"]) == (10, 10)
    assert report["positive_name"] == "Set A"


def test_other_weights_and_wrong_sets_are_told(
    guest: Callable[[str], Guest], checkpoint: Callable[[str], Path]
) -> None:
    long = Typed("Set A", "\n".join(f"{'self ' * 3000}{k}" for k in range(10)))
    order = ContrastOrder(positive=long, negative=Typed("Set B", long.text.replace("self", "of")))
    for changes, words in (
        ({"sha256": "0" * 64}, "0" * 12),
        ({"order": order}, ", line 1: "),
    ):
        found: Records = []
        work(_request(guest("gpt2"), checkpoint("gpt2"), **changes), found.append)
        said = "".join(
            part if isinstance(part, str) else "" for part in found[-1]["error"]["parts"]
        )
        assert words in said
        assert "Set A.txt" not in said


def test_what_is_stopped_is_gone_and_keeps_nothing(
    guest: Callable[[str], Guest], checkpoint: Callable[[str], Path]
) -> None:
    kept: Records = []
    jobs = Jobs()
    request = _request(guest("gpt2"), checkpoint("gpt2"))
    job = jobs.start(request, kept.append)
    assert jobs.start(request, kept.append) is job
    assert jobs.running("contrast", request.sha256) is job
    job.stop()
    assert job.wait(30)
    assert jobs.running("contrast", request.sha256) is None
    assert jobs.take_ended("contrast", request.sha256) is job
    assert jobs.take_ended("contrast", request.sha256) is None
    assert (kept, job.error) == ([], None)
    assert not [
        each
        for each in psutil.Process().children()
        if "dashboard.background.work" in each.cmdline()
    ]


def test_a_process_that_ends_without_a_word_is_an_error(
    guest: Callable[[str], Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    job = Job(_request(guest("gpt2"), Path("x")), lambda report: None)
    assert job.wait(30)
    assert "status 1" in str(job.error)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    job = Job(_request(guest("gpt2"), Path("x")), lambda report: None)
    assert job.wait(30)
    assert job.error is not None


def test_a_report_is_kept_before_it_is_over(
    guest: Callable[[str], Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def follow(request: Request, hear: Say, is_stopped: threading.Event) -> None:
        hear({"stage": "One", "done": 1, "total": 2, "unit": "places"})
        hear({"report": {"rows": []}})

    monkeypatch.setattr(background, "follow_process", follow)
    kept: Records = []
    job = Job(_request(guest("gpt2"), Path("x")), kept.append)
    assert job.wait(30)
    assert kept == [{"rows": []}]
    assert (job.stage.title, job.stage.share) == ("One", 0.5)
