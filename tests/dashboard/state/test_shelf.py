"""The shelf: one value a key, made once, within its bytes; by any number of threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from dashboard.state.shelf import Shelf, size_of


def make(n_bytes: int, made: list[int] | None = None) -> np.ndarray:
    if made is not None:
        made.append(n_bytes)
    return np.zeros(n_bytes, dtype=np.uint8)


def test_a_value_is_made_once() -> None:
    shelf, made = Shelf(10_000), list[int]()
    first = shelf.keep(("a", 1), lambda: make(10, made))
    assert shelf.keep(("a", 1), lambda: make(10, made)) is first
    assert shelf.peek(("a", 1)) is first
    assert shelf.peek(("a", 2)) is None
    assert made == [10]


def test_the_longest_unused_value_goes_first() -> None:
    shelf = Shelf(250)
    for name in ("a", "b"):
        shelf.keep((name,), lambda: make(100))
    # It was made first, and used last.
    shelf.keep(("a",), lambda: make(100))
    shelf.keep(("c",), lambda: make(100))
    assert [shelf.peek((name,)) is not None for name in "abc"] == [True, False, True]
    assert shelf.n_bytes == 200


def test_the_newest_value_stays_however_large_it_is() -> None:
    shelf = Shelf(100)
    shelf.keep(("small",), lambda: make(50))
    shelf.keep(("large",), lambda: make(1_000))
    assert shelf.peek(("large",)) is not None
    assert shelf.peek(("small",)) is None
    assert shelf.n_bytes == 1_000


def test_none_is_a_value_too() -> None:
    shelf, made = Shelf(100), list[int]()
    for _ in range(2):
        assert shelf.keep(("a",), lambda: made.append(1)) is None
    assert made == [1]


def test_an_old_value_is_made_anew() -> None:
    now = [0.0]
    shelf, made = Shelf(1_000, clock=lambda: now[0]), list[int]()
    for time_s, expected in ((0.0, 1), (2.9, 1), (3.1, 2), (6.0, 2), (6.2, 3)):
        now[0] = time_s
        shelf.keep(("a",), lambda: make(1, made), most_age_s=3.0)
        assert len(made) == expected
    assert shelf.n_bytes == 1


def test_a_kind_is_forgotten_and_no_other() -> None:
    shelf = Shelf(1_000)
    for key in (("a", 1), ("a", 2), ("b", 1)):
        shelf.keep(key, lambda: make(10))
    shelf.forget("a")
    assert [shelf.peek(key) is None for key in (("a", 1), ("a", 2), ("b", 1))] == [
        *(True, True, False)
    ]
    assert shelf.n_bytes == 10


def test_what_is_forgotten_while_it_is_made_is_made_anew() -> None:
    """A list of folders that was begun before a folder was made lacks that one."""
    shelf, made = Shelf(1_000), list[int]()

    def interrupted() -> np.ndarray:
        shelf.forget("a")
        return make(10, made)

    for key in (("a", 1), ("b", 1)):
        assert len(shelf.keep(key, interrupted)) == 10
    assert shelf.peek(("a", 1)) is None
    assert shelf.peek(("b", 1)) is not None
    shelf.keep(("a", 1), lambda: make(10, made))
    assert made == [10, 10, 10]
    assert shelf.peek(("a", 1)) is not None
    assert shelf.n_bytes == 20


def test_what_fails_is_not_kept() -> None:
    shelf = Shelf(1_000)

    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.keep(("a",), fail)
    assert shelf.keep(("a",), lambda: 3) == 3


def test_a_value_that_asks_for_itself_is_a_mistake() -> None:
    shelf = Shelf(1_000)
    with pytest.raises(RuntimeError, match="itself"):
        shelf.keep(("a",), lambda: shelf.keep(("a",), lambda: 1))
    # One that asks for another is none.
    assert shelf.keep(("a",), lambda: shelf.keep(("b",), lambda: 1)) == 1


def test_threads_that_ask_at_once_get_one_value() -> None:
    shelf, made, found = Shelf(1_000), list[int](), list[object]()
    began, go_on = threading.Event(), threading.Event()

    def slow() -> np.ndarray:
        began.set()
        assert go_on.wait(10)
        return make(10, made)

    threads = [
        threading.Thread(target=lambda: found.append(shelf.keep(("a",), slow))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    assert began.wait(10)
    # Other values don't wait for it.
    assert shelf.keep(("b",), lambda: 1) == 1
    go_on.set()
    for thread in threads:
        thread.join()
    assert made == [10]
    assert len({id(each) for each in found}) == 1


def test_who_waits_can_leave_and_makes_what_another_could_not() -> None:
    shelf = Shelf(1_000)
    began, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        began.set()
        go_on.wait(10)
        raise ValueError("no")

    def first() -> None:
        with pytest.raises(ValueError, match="no"):
            shelf.keep(("a",), fail)

    thread = threading.Thread(target=first)
    thread.start()
    assert began.wait(10)

    def leave() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.keep(("a",), lambda: 1, waiting=leave)
    assert shelf.keep(("a",), lambda: 2, waiting=go_on.set) == 2
    thread.join()


def test_many_threads_keep_the_bound() -> None:
    shelf, problems = Shelf(1_000), list[BaseException]()

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        try:
            for key in rng.integers(0, 40, 400).tolist():
                value = shelf.keep((key,), lambda key=key: make(key * 10))
                assert len(value) == key * 10
                assert shelf.n_bytes <= 1_000
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    held = [shelf.peek((key,)) for key in range(40)]
    assert shelf.n_bytes == sum(len(each) for each in held if each is not None)


@dataclass
class Holder:
    values: np.ndarray
    others: list[torch.Tensor]
    again: np.ndarray


def test_a_value_weighs_what_it_holds_once() -> None:
    values = np.zeros(1_000)
    holder = Holder(values, [torch.zeros(500)], values)
    assert 10_000 <= size_of({"a": (holder, holder)}) < 12_000
    holder.others.append(holder)  # type: ignore[arg-type]
    assert size_of(holder) < 12_000
    assert size_of(np.zeros(8, dtype=np.uint8)) == 8
