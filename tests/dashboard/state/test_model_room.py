"""One model in memory, and one at work with it."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dashboard.state import model_room
from dashboard.state.model_room import ModelRoom
from projector.errors import UserError
from projector.model.hashing import hash_checkpoint
from projector.model.loading import LoadedModel, load_model
from tests.dashboard.conftest import DECODER, ENCODER, GPT2
from tests.refused import refused_naming

Checkpoint = Callable[[str], Path]


@pytest.fixture
def room() -> ModelRoom:
    return ModelRoom(device="cpu")


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that were loaded, in turn."""
    found: list[str] = []

    def load(name: str, **options: object) -> LoadedModel:
        found.append(name)
        return load_model(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(model_room, "load_model", load)
    return found


def test_a_model_is_loaded_once_with_its_head(
    room: ModelRoom, loads: list[str], checkpoint: Checkpoint
) -> None:
    name = str(checkpoint(GPT2))
    assert (room.name, room.device) == (None, None)
    with room.use(name) as first:
        assert first.loaded.model.lm_head is not None
        assert len(first.architecture.blocks) == 2
    with room.use(name) as again:
        assert again is first
    assert (room.name, room.device) == (name, "cpu")
    assert loads == [name]


def test_another_model_takes_the_place_of_the_first(
    room: ModelRoom, checkpoint: Checkpoint
) -> None:
    names = [str(checkpoint(family)) for family in (DECODER, GPT2, ENCODER)]
    gone: list[weakref.ref[torch.nn.Module]] = []
    for name in names:
        with room.use(name) as guest:
            assert room.name == name
            # Before the next is loaded, so that there is never room for two.
            assert [ref() for ref in gone] == [None] * len(gone)
            gone.append(weakref.ref(guest.loaded.model))
        del guest
    gc.collect()
    assert [ref() is None for ref in gone] == [True, True, False]


def test_the_first_is_gone_before_the_next_is_loaded(
    room: ModelRoom, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    with room.use(str(checkpoint(DECODER))) as guest:
        first = weakref.ref(guest.loaded.model)
    del guest
    was_there: list[bool] = []

    def load(name: str, **options: object) -> LoadedModel:
        was_there.append(first() is not None)
        return load_model(name, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(model_room, "load_model", load)
    with room.use(str(checkpoint(GPT2))):
        pass
    assert was_there == [False]


def test_other_weights_are_refused(
    room: ModelRoom, loads: list[str], checkpoint: Checkpoint
) -> None:
    name = str(checkpoint(DECODER))
    sha256 = hash_checkpoint(checkpoint(DECODER))
    with refused_naming(name, sha256[:12], "0" * 12, "--model"):  # noqa: SIM117
        with room.use(name, "0" * 64):
            pytest.fail("a model with other weights was lent")
    with room.use(name, sha256) as guest:
        assert guest.loaded.weights_sha256 == sha256
    assert loads == [name]


def test_a_model_that_is_not_there_leaves_the_room_usable(
    room: ModelRoom, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    with pytest.raises(UserError):  # noqa: SIM117
        with room.use(str(tmp_path)):
            pass
    assert room.name is None
    with room.use(str(checkpoint(GPT2))):
        assert room.name == str(checkpoint(GPT2))


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (MemoryError(), "memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "--device cpu"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "memory",
        ),
        (RuntimeError("[enforce fail] . DefaultCPUAllocator: not enough memory"), "memory"),
    ],
)
def test_a_lack_of_memory_is_said(
    error: Exception, says: str, room: ModelRoom, checkpoint: Checkpoint,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    name = str(checkpoint(GPT2))
    with refused_naming(says), room.use(name):
        raise error

    def load(name: str, **options: object) -> LoadedModel:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(model_room, "load_model", load)
        with refused_naming(says), room.use(str(checkpoint(DECODER))):
            pass
    with room.use(name):
        pass


@pytest.mark.parametrize("error", [RuntimeError("shapes"), ValueError("x"), KeyboardInterrupt()])
def test_the_model_is_given_back_after_any_error(
    error: BaseException, room: ModelRoom, checkpoint: Checkpoint
) -> None:
    name = str(checkpoint(GPT2))
    with pytest.raises(type(error)) as raised, room.use(name):
        raise error
    assert raised.value is error
    taken = threading.Event()

    def use() -> None:
        with room.use(name, waiting=lambda: pytest.fail("the lock was kept")):
            taken.set()

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    thread.join(30)
    assert taken.is_set()


def test_the_second_is_told_that_it_waits_and_never_overlaps(
    room: ModelRoom, checkpoint: Checkpoint
) -> None:
    name, other = str(checkpoint(DECODER)), str(checkpoint(GPT2))
    told, done, events = threading.Event(), threading.Event(), list[str]()

    def second() -> None:
        def wait() -> None:
            if not told.is_set():
                events.append("waits")
            told.set()

        with room.use(other, waiting=wait):
            events.append("second")
        done.set()

    with room.use(name) as guest:
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        assert told.wait(30)
        # Its model is not made room for while it is worked with.
        assert room.name == name
        assert next(guest.loaded.model.parameters()).isfinite().all()
        events.append("first")
    assert done.wait(30)
    assert events == ["waits", "first", "second"]
    assert room.name == other


def test_nobody_is_told_to_wait_for_nothing(room: ModelRoom, checkpoint: Checkpoint) -> None:
    told: list[str] = []
    for _ in range(2):
        with room.use(str(checkpoint(GPT2)), waiting=lambda: told.append("waits")):
            pass
    assert told == []


def test_who_waits_can_give_up(
    room: ModelRoom, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_room, "_WAIT_SECONDS", 0.01)
    name = str(checkpoint(GPT2))
    n_told = 0

    class GivesUp(BaseException):
        pass

    def wait() -> None:
        nonlocal n_told
        n_told += 1
        if n_told == 3:
            raise GivesUp

    ended: list[type] = []

    def second() -> None:
        try:
            with room.use(name, waiting=wait):
                ended.append(ModelRoom)
        except GivesUp:
            ended.append(GivesUp)

    with room.use(name):
        thread = threading.Thread(target=second, daemon=True)
        thread.start()
        thread.join(30)
        assert ended == [GivesUp]
    with room.use(name, waiting=lambda: pytest.fail("who gave up kept the lock")):
        pass


def test_many_sessions_share_the_model_one_after_another(
    room: ModelRoom, checkpoint: Checkpoint
) -> None:
    names = [str(checkpoint(family)) for family in (DECODER, GPT2)]
    n_inside, most_inside, seen = 0, 0, list[tuple[str, str]]()

    def work(name: str) -> None:
        nonlocal n_inside, most_inside
        for _ in range(2):
            with room.use(name) as guest:
                n_inside += 1
                most_inside = max(most_inside, n_inside)
                # Long enough for another to come in, if it could.
                threading.Event().wait(0.01)
                seen.append((name, guest.loaded.identifier))
                n_inside -= 1

    threads = [threading.Thread(target=work, args=(names[k % 2],)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most_inside == 1
    assert len(seen) == 8
    assert all(Path(name).name == identifier for name, identifier in seen)
