"""Settings of the whole process, changed by several threads at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch

from projector.processor import in_threads
from projector.statistics import precision
from projector.statistics.precision import full_float32, products_of


@pytest.fixture
def four_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def overlapping(
    one: Callable[[], AbstractContextManager[None]],
    other: Callable[[], AbstractContextManager[None]],
    read: Callable[[], Any],
) -> dict[str, Any]:
    """What two threads read: the second's use begins within the first's, and ends after it."""
    found: dict[str, Any] = {}
    began, begun, ended = (threading.Event() for _ in range(3))

    def first() -> None:
        with one():
            began.set()
            assert begun.wait(60)
            found["first within"] = read()
        found["first after"] = read()
        ended.set()

    def second() -> None:
        assert began.wait(60)
        with other():
            begun.set()
            assert ended.wait(60)
            found["second within"] = read()
        found["second after"] = read()

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(first), pool.submit(second)]:
            done.result()
    with ThreadPoolExecutor(1) as pool:
        found["in a new thread"] = pool.submit(read).result()
    found["here"] = read()
    return found


@pytest.mark.usefixtures("four_threads")
def test_overlapping_numbers_of_threads_leave_the_one_before() -> None:
    assert overlapping(lambda: in_threads(1), lambda: in_threads(2), torch.get_num_threads) == {
        "first within": 1,
        "second within": 2,
        "first after": 4,
        "second after": 4,
        "in a new thread": 4,
        "here": 4,
    }


@pytest.mark.usefixtures("four_threads")
def test_numbers_of_threads_within_one_another() -> None:
    seen = []
    with in_threads(2):
        with in_threads(1), in_threads(None):
            seen.append(torch.get_num_threads())
        seen.append(torch.get_num_threads())
    assert [*seen, torch.get_num_threads()] == [1, 2, 4]


def test_overlapping_uses_of_full_float32_leave_the_setting_before() -> None:
    room: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = room.fp32_precision
    room.fp32_precision = "bf16"
    try:
        found = overlapping(full_float32, full_float32, lambda: room.fp32_precision)
    finally:
        room.fp32_precision = before
    assert found == {
        "first within": "ieee",
        "second within": "ieee",
        "first after": "ieee",
        "second after": "bf16",
        "in a new thread": "bf16",
        "here": "bf16",
    }


def products_of_bf16() -> AbstractContextManager[None]:
    return products_of(torch.bfloat16, torch.device("cpu"))


def test_who_asks_for_full_float32_has_it_whatever_others_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: True)
    room: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = room.fp32_precision
    for one, other in ((products_of_bf16, full_float32), (full_float32, products_of_bf16)):
        found = overlapping(one, other, lambda: room.fp32_precision)
        # Where the one has ended, the other has what it asked for.
        alone = "ieee" if other is full_float32 else "bf16"
        assert found["first within"] == "ieee"
        assert found["second within"] == alone
        assert found["here"] == before


def test_products_are_in_bf16_where_the_model_gives_that_and_the_cpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    room: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    cpu = torch.device("cpu")
    for can, dtype, device, expected in (
        (True, torch.bfloat16, cpu, "bf16"),
        (True, torch.float32, cpu, "ieee"),
        (True, torch.bfloat16, torch.device("cuda"), "ieee"),
        (False, torch.bfloat16, cpu, "ieee"),
    ):
        monkeypatch.setattr(precision, "multiplies_bf16", lambda can=can: can)
        with products_of(dtype, device):
            assert room.fp32_precision == expected
