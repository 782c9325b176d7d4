"""One model in memory at a time, and one piece of work on it at a time.

Hooks see every pass of a model, whoever runs it, so two sessions must not run it at once.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from dashboard.guest import Guest
from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from projector.model.loading import BUNDLED, load_model

# Seconds between checks whether a waiting session still wants the model.
_WAIT_SECONDS = 0.5


class ModelRoom:
    """Lends the one model in memory."""

    def __init__(self, device: str = "auto", dtype: str = "auto") -> None:
        self._device, self._dtype = device, dtype
        self._lock = threading.Lock()
        self._name: str | None = None
        self._guest: Guest | None = None
        # The model whose files hold other weights than were asked for.
        self._refused: set[tuple[str, str | None]] = set()

    @property
    def name(self) -> str | None:
        """The name of the model in memory."""
        return self._name

    @property
    def device(self) -> str | None:
        """The device of the model in memory."""
        guest = self._guest
        return None if guest is None else str(next(guest.loaded.model.parameters()).device)

    def is_ready(self, name: str, sha256: str | None) -> bool:
        """Whether this model, with these weights, is in memory."""
        guest = self._guest
        same = guest is not None and sha256 in (None, guest.loaded.weights_sha256)
        return same and self._name == name

    @contextmanager
    def use(
        self, name: str, sha256: str | None = None, waiting: Callable[[], object] = lambda: None
    ) -> Iterator[Guest]:
        """Use a model; it replaces another model in memory.

        Args:
            name: see :func:`projector.model.loading.load_model`.
            sha256: hash of the expected weights, if any.
            waiting: called repeatedly while another session uses the model; an exception in it ends
                the wait.

        Raises:
            UserError: if there is no such model, it has other weights, or it doesn't fit in memory.
        """
        is_ours = self._lock.acquire(blocking=False)
        while not is_ours:
            waiting()
            is_ours = self._lock.acquire(timeout=_WAIT_SECONDS)
        try:
            if not self._holds(name, sha256):
                self._release()
                self._guest, self._name = self._load(name), name
            guest = self._guest
            assert guest is not None
            theirs = guest.loaded.weights_sha256
            if sha256 is not None and theirs != sha256:
                raise UserError(
                    f"model '{name}' isn't this projection's model: its weights are "
                    f"{theirs[:12]}, not {sha256[:12]}; start with --model and the right one"
                )
            with _memory_errors():
                yield guest
        finally:
            self._lock.release()

    def _holds(self, name: str, sha256: str | None) -> bool:
        """Whether the model in memory is the right one; a file may have been replaced meanwhile."""
        if self._guest is None or self._name != name:
            return False
        asked = (name, sha256)
        if sha256 in (None, self._guest.loaded.weights_sha256) or asked in self._refused:
            return True
        # Checked once: if the files still hold other weights, don't load them at every click.
        self._refused.add(asked)
        return False

    def _load(self, name: str) -> Guest:
        with _memory_errors():
            try:
                loaded = load_model(name, device=self._device, dtype=self._dtype, with_head=True)
            except UserError as error:
                if Path(name).exists() or name == BUNDLED:
                    raise
                # A projection knows only the last part of a model's folder.
                raise UserError(
                    f"{error}; if it is a folder on this machine, start the app with --model "
                    "and that folder"
                ) from error
            return Guest(loaded, find_architecture(loaded.model))

    def _release(self) -> None:
        self._guest, self._name = None, None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        torch.cuda.empty_cache()
        raise UserError(
            "out of memory on the accelerator: shorten the prompt, or start the app with "
            "--device cpu"
        ) from error
    except MemoryError as error:
        raise UserError("out of memory: use a shorter prompt or a smaller model") from error
    except RuntimeError as error:
        # Errors of PyTorch's CPU allocator have no class of their own.
        if "not enough memory" not in str(error) and "can't allocate" not in str(error):
            raise
        raise UserError("out of memory: use a shorter prompt or a smaller model") from error
