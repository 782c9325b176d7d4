"""Work that a page does by itself, and that the user can stop: then it waits to be asked for."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TypeVar

import streamlit as st

from dashboard.frame.work import Work, working

T = TypeVar("T")
Begin = Callable[[], AbstractContextManager[Work]]


def unless_stopped(name: str, key: Hashable, title: str, find: Callable[[Begin], T]) -> T | None:
    """What ``find`` gives; None, with a button that asks for it again, where the user stopped it.

    Args:
        name: of the work; one of its kind is stopped at a time.
        key: tells this work from others of its kind.
        title: what the button asks for, such as ``Run the lens``.
        find: given what begins a bar, which it calls once if there is work to do.
    """
    state, flag = st.session_state, f"stopped {name}"
    if state.get(flag) == key:
        left, right = st.columns([3, 1], vertical_alignment="center")
        left.caption("The run was stopped.")
        right.button(
            title, key=f"again {name}", width="stretch", on_click=lambda: state.pop(flag, None)
        )
        return None
    with ExitStack() as stack:

        def begin() -> AbstractContextManager[Work]:
            bar = working(title, lambda: state.__setitem__(flag, key))
            # The bar goes when what was made is kept: a page that is left then ends at the bar.
            return nullcontext(stack.enter_context(bar))

        return find(begin)
