"""Work that a page starts by itself; after the user stops it, it waits for a click."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import TypeVar

import streamlit as st

from dashboard.frame.work import Work, working

T = TypeVar("T")
Begin = Callable[[], AbstractContextManager[Work]]


def unless_stopped(name: str, key: Hashable, title: str, find: Callable[[Begin], T]) -> T | None:
    """The result of ``find``; None, with a button that starts it again, if the user stopped it.

    Args:
        name: name of the kind of work; one stopped work is kept per kind.
        key: identifies this work among its kind.
        title: label of the button, such as ``Run the lens``.
        find: does the work; its argument starts a progress bar, to be called once if there is work
            to do.
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
            # The bar is removed after the result is kept: a page that is left ends at the bar.
            return nullcontext(stack.enter_context(bar))

        return find(begin)
