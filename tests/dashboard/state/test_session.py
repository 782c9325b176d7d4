"""Text that a page shows as it is, and the selection that stands in the address."""

from __future__ import annotations

import html
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from dashboard.state.selection import Selection
from dashboard.state.session import plain

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "**bold** _it_ `code` ~~gone~~",
    "[link](javascript:alert(1))",
    "![image](http://x/y.png)",
    "# heading",
    "- item",
    "1. item",
    "> quote",
    "a | b\n--- | ---\nc | d",
    "$x^2$ and $$y$$",
    ":red[text] :material/bug: :smile:",
    "&lt;b&gt; &amp; &copy;",
    "back\\slash \\* \\<b>",
    "http://example.com",
    "<http://example.com>",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_markdown_leaves_plain_text_as_it_is(text: str) -> None:
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(plain(text))
    elements = set(re.findall(r"<(\w+)", rendered))
    assert elements <= ({"p", "ol", "li"} if text == "1. item" else {"p"})
    shown = html.unescape(re.sub(r"<[^>]*>", "", rendered)).strip()
    assert shown == (text.removeprefix("1. ") if text == "1. item" else text)
    # And what Streamlit has beyond Markdown: formulas, colours and icons.
    assert not re.search(r"(?<!\\)[$:]", plain(text))


def test_any_text_is_shown_as_it_is() -> None:
    rng = np.random.default_rng(0)
    signs = list("ab1 <>&\"'`*_{}[]()#+-.!|~$:\\/^=@;,?%é")
    for _ in range(300):
        text = "x" + "".join(rng.choice(signs, 20)) + "x"
        text = re.sub(" +", " ", text)
        rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(plain(text))
        assert set(re.findall(r"<(\w+)", rendered)) == {"p"}
        assert html.unescape(re.sub(r"<[^>]*>", "", rendered)).strip() == text


def page() -> None:
    import streamlit as st

    from dashboard.state import session

    session.read_url()
    for key, value in st.session_state.get("changes", {}).items():
        session.change(**{key: value})
    st.session_state["changes"] = {}
    st.toggle("Beside it", key="beside")
    # One for each layer: that of the layer before is gone at the end of the run.
    st.toggle("Of it", key=f"of layer {session.current().layer}")
    st.text(repr(session.current().params()))
    session.write_url()


def test_an_address_that_lags_behind_changes_nothing() -> None:
    at = AppTest.from_function(page)
    at.query_params["layer"] = "3"
    at.run()
    at.session_state["changes"] = {"layer": 4}
    at.run()
    # The next click comes before the browser has the new address.
    at.query_params["layer"] = "3"
    at.toggle(key="beside").set_value(True).run()
    assert dict(at.query_params) == {"layer": "4"}


def test_a_step_back_at_once_is_a_step_back() -> None:
    at = AppTest.from_function(page)
    at.query_params["layer"] = "3"
    at.run()
    at.session_state["changes"] = {"layer": 4}
    at.run()
    assert dict(at.query_params) == {"layer": "4"}
    # The same old address, and no click.
    at.query_params["layer"] = "3"
    at.run()
    assert at.text[0].value == "{'layer': '3'}"
    assert dict(at.query_params) == {"layer": "3"}


def test_what_was_just_chosen_counts_more_than_the_address() -> None:
    at = AppTest.from_function(page)
    at.query_params["layer"] = "3"
    at.run()
    # A click's own function runs before the page does; the run before it never wrote.
    at.session_state["selection"] = Selection(layer=5)
    at.session_state["was changed"] = True
    at.session_state["written params"] = None
    at.run()
    assert dict(at.query_params) == {"layer": "5"}


def test_the_address_and_the_selection_are_one() -> None:
    at = AppTest.from_function(page)
    at.query_params["layer"] = "3"
    at.query_params["neuron"] = "5"
    at.query_params["evil"] = "1"
    at.run()
    # What means nothing is gone from the address.
    assert dict(at.query_params) == {"layer": "3", "neuron": "5"}
    at.session_state["changes"] = {"layer": 4}
    at.run()
    # Neuron 5 of another layer is another one.
    assert dict(at.query_params) == {"layer": "4"}
    # The user goes back.
    at.query_params["layer"] = "3"
    at.query_params["neuron"] = "5"
    at.run()
    assert at.text[0].value == "{'layer': '3', 'neuron': '5'}"
    # Streamlit empties the address when another page is opened: what was chosen stays.
    at.query_params.clear()
    at.run()
    assert dict(at.query_params) == {"layer": "3", "neuron": "5"}
    assert not at.exception


def two_pages() -> None:
    import streamlit as st

    from dashboard.state import session

    session.read_url()
    if not st.session_state.get("elsewhere"):
        st.text_input("Field", key="typed", on_change=session.keep("typed", "at first"))
    session.write_url()


def test_a_field_keeps_what_was_typed_while_another_page_is_looked_at() -> None:
    at = AppTest.from_function(two_pages).run()
    assert at.text_input[0].value == "at first"
    at.text_input[0].set_value("of mine").run()
    at.session_state["elsewhere"] = True
    at.run()
    at.run()
    assert not at.text_input
    at.session_state["elsewhere"] = False
    at.run()
    assert at.text_input[0].value == "of mine"
    # An emptied field stays empty.
    at.text_input[0].set_value("").run()
    at.session_state["elsewhere"] = True
    at.run()
    at.session_state["elsewhere"] = False
    at.run()
    assert at.text_input[0].value == ""


def page_that_runs_again() -> None:
    import streamlit as st

    from dashboard.state import session

    session.read_url()
    state = st.session_state
    if not state.get("elsewhere"):
        if state.pop("again", False):
            # What the browser, which was told nothing of the first run, has.
            state["typed"] = ""
        st.text_input("Field", key="typed", on_change=session.keep("typed", ""))
        if state.pop("breaks off", False):
            state["again"] = True
            session.run_again()
    session.write_url()


def test_a_field_is_filled_again_where_the_run_that_filled_it_was_broken_off() -> None:
    at = AppTest.from_function(page_that_runs_again).run()
    at.text_input[0].set_value("of mine").run()
    at.session_state["elsewhere"] = True
    at.run()
    at.session_state["elsewhere"] = False
    at.session_state["breaks off"] = True
    at.run()
    assert at.text_input[0].value == "of mine"


def three_pages() -> None:
    import streamlit as st

    from dashboard.state import session

    session.read_url()

    def draw() -> None:
        st.text_area("Field", key="typed", on_change=session.keep("typed", ""))

    def draw_lower() -> None:
        st.title("One more, as fields of pages have other things above them")
        draw()

    pages = {
        "one": st.Page(draw, url_path="one", default=True),
        "two": st.Page(draw_lower, url_path="two"),
        "three": st.Page(lambda: draw_lower(), url_path="three", title="Three"),
    }
    shown = st.navigation([*pages.values()])
    session.remember_pages(pages, shown)
    shown.run()
    session.write_url()


def test_a_field_that_pages_share_goes_with_the_user_from_page_to_page() -> None:
    at = AppTest.from_function(three_pages).run()

    def visit(path: str) -> None:
        at._page_hash = calc_hash(path)
        at.run()

    visit("two")
    at.text_area[0].set_value("of mine").run()
    for path in ("three", "two", "one", "two", "three", "one"):
        visit(path)
        assert at.text_area[0].value == "of mine", path
    at.text_area[0].set_value("other").run()
    for path in ("two", "three"):
        visit(path)
        at.run()
        assert at.text_area[0].value == "other", path
