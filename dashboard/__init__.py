"""Maps, poles, prompts and pruning of a transformer's neurons, in a browser.

Rooms; each may import only those below it.

1. ``streamlit_app``: navigation.
2. ``views``: one module per page; no page imports another.
3. ``frame``: parts that pages share: the sidebar, the opening, progress, downloads, the selection.
4. ``state``: the selection, the session, settings, the shelf, the folder on disk, the one model.
5. ``components``: the map, the only JavaScript.
6. Computations of pages, without Streamlit: ``running``, ``sweeping``, ``jobs``, ``orders``,
   ``ablation``, ``neuron_facts``, ``prompts``, ``overview``, ``residual``, ``background``,
   ``guest``, ``roots``.
7. ``drawing``: turns numbers into colours, cells, bytes, figures and words.
"""

from projector.environment import prepare_environment

# Before any of it loads PyTorch.
prepare_environment()
