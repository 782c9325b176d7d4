"""``streamlit run dashboard``: navigation only."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard.frame import opening
from dashboard.frame.side.background import find_in_background
from dashboard.frame.side.search import show_found
from dashboard.frame.sidebar import choose_scene, read_settings, tell
from dashboard.state import session
from dashboard.views import across, heatmap, neuron, overview, poles, prompt, pruning
from dashboard.views import map as map_view
from dashboard.views.residual import basis, contrast, heads, layer_time, lens

# Less empty space above, so that a page's subject is visible without scrolling. Numbers are next to
# pictures, and aren't headlines. Not in config.toml, because a theme there disables dark and light.
_STYLE = """<style>
[data-testid='stMainBlockContainer'] { padding: 3.5rem 2.5rem 3rem; }
[data-testid='stMetricValue'] { font-size: 1.5rem; }
/* Not the sign of its help. */
.st-key-layout [data-testid='stButtonGroup'] > div button,
.st-key-color-text-by [data-testid='stButtonGroup'] > div button { min-height: 2.5rem; }
</style>"""
# Drawn here, because an icon by name would be fetched from a font server.
_ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><circle cx="9" cy="22" r="5" '
    'fill="#E69F00"/><circle cx="23" cy="23" r="4" fill="#009E73"/><circle cx="12" cy="9" r="4" '
    'fill="#56B4E9"/><circle cx="24" cy="10" r="5" fill="#d0434b"/></svg>'
)
VIEWS = (
    overview,
    map_view,
    neuron,
    prompt,
    lens,
    heads,
    layer_time,
    contrast,
    basis,
    heatmap,
    across,
    poles,
    pruning,
)

st.set_page_config("Transformer Projector", _ICON, layout="wide")
st.html(_STYLE)
menu = st.sidebar.container(gap="xxsmall")
linked = None
with session.problems():
    session.read_url()
    settings = read_settings()
    scene = choose_scene(settings)
    if scene is None:
        opening.show(settings)
    else:
        about, background = st.sidebar.empty(), st.sidebar.container()
        tell(scene, about)
        pages = {
            view.PATH: st.Page(
                partial(view.show, scene), title=view.TITLE, icon=view.ICON, url_path=view.PATH
            )
            for view in VIEWS
        }
        # The first page opens if an address names none. Streamlit removes its own name, so that it
        # is there a second time: each page can be opened by its name.
        first = st.Page(
            partial(VIEWS[0].show, scene),
            title=VIEWS[0].TITLE,
            icon=VIEWS[0].ICON,
            url_path="",
            default=True,
        )
        # Links of older versions use this name.
        start = st.Page(
            partial(VIEWS[0].show, scene),
            title=VIEWS[0].TITLE,
            icon=VIEWS[0].ICON,
            url_path="start",
        )
        # Our own links, because they hold the selection: one step back in the browser is one page.
        page = st.navigation([first, start, *pages.values()], position="hidden")
        if page in (first, start):
            pages[VIEWS[0].PATH] = page
        session.remember_pages(pages, page)
        with session.problems():
            show_found(scene.path, scene.projection)
        linked = session.show_menu(menu)
        page.run()
        # After the page: points first.
        with session.problems():
            find_in_background(scene, background, shows_all=page.title == VIEWS[0].TITLE)
        # It may have loaded the model.
        tell(scene, about)
session.write_url()
# Links drawn before the page changed the selection would lead back to the old one.
if linked not in (None, session.current()):
    session.run_again()
