"""Maps, poles, prompts and pruning of a transformer's neurons, in a browser.

Rooms, and who may import whom: each one those below it.

1. ``streamlit_app``: navigation.
2. ``views``: one page each; no page imports another.
3. ``frame``: what pages stand in and share: the sidebar, the opening, progress, downloads, what is
   chosen.
4. ``state``: the selection, the session, settings, the shelf, the folder on disk, the one model.
5. ``components``: the map, the only JavaScript.
6. What pages compute, free of Streamlit: ``running``, ``sweeping``, ``jobs``, ``orders``,
   ``ablation``, ``neuron_facts``, ``prompts``, ``overview``, ``residual``, ``background``,
   ``guest``, ``roots``.
7. ``drawing``: numbers become colours, cells, bytes, figures, words.
"""

from projector.environment import prepare_environment

# Before any of it loads PyTorch.
prepare_environment()
