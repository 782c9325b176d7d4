"""``streamlit run dashboard``: navigation only."""

from __future__ import annotations

from functools import partial

import streamlit as st

from dashboard import opening, session
from dashboard.frame import choose_scene, read_settings
from dashboard.views import heatmap, neuron, poles, prompt, pruning
from dashboard.views import map as map_view

VIEWS = (map_view, neuron, prompt, heatmap, poles, pruning)

st.set_page_config("Transformer Projector", ":material/scatter_plot:", layout="wide")
with session.problems():
    session.read_url()
    settings = read_settings()
    scene = choose_scene(settings)
    if scene is None:
        opening.show(settings)
    else:
        pages = [
            st.Page(partial(view.show, scene), title=view.TITLE, icon=view.ICON, url_path=view.PATH)
            for view in VIEWS
        ]
        page = st.navigation(pages)
        page.run()
    session.write_url()
