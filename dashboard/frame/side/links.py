"""Report parts of a link that can't be shown, and their replacements, in one note."""

from __future__ import annotations

from dashboard.drawing import coloring
from dashboard.drawing.cells import ORDERS, USUAL_ORDER
from dashboard.frame.chosen import poles_shown
from dashboard.state import session
from dashboard.state.scene import Scene
from dashboard.state.selection import Selection, read_grouping
from projector.sites import site_words

_MOST_CHARACTERS = 40
# Parts of a selection that belong to one map.
_OF_A_MAP = ("neuron", "head", "pole", "marked", "isolate")


def check_place(asked: Selection, scene: Scene) -> None:
    """Report a link's projection, model, layout, layer or site that doesn't exist.

    Args:
        asked: the selection in the link.
        scene: the shown selection.
    """
    current = session.current()
    shown = {
        "projection": f"projection {scene.name} is shown",
        "model": f"model {scene.model_name} is used",
        "layer": f"layer {scene.layer} is shown",
        "site": f"{site_words(scene.site)} are shown"
        if site_words(scene.site).endswith("s")
        else f"{site_words(scene.site)} is shown",
        "layout": f"layout {scene.layout} is shown",
        "neuron": "no neuron is selected",
        "head": "no head is selected",
        "target": "the model's own next token is attributed",
        "against": "no second token is compared",
        "reading": "no cell of the lens is selected",
        "pole": "no pole is selected",
        "token": "the page shows its usual token",
        "other_token": "a token of prompt A is shown",
        "marked": "no neurons are marked",
        "isolate": "all neurons are shown",
        "between": "the strongest pair of layers is shown",
    }
    for name, text in session.take_unreadable().items():
        fallback = shown.get(name, f"the usual {name} is used")
        session.note(f"The link's {name} '{_cut(text)}' can't be read: {fallback}.")
    if asked.site is not None and asked.site not in scene.projection.sites:
        session.note(f"This projection has no site '{_cut(asked.site)}': {shown['site']}.")
    if asked.layer is not None and asked.layer != scene.layer:
        session.note(f"This projection has no layer {asked.layer:,}: {shown['layer']}.")
    is_known = asked.projection in (None, scene.name)
    lost = [name for name in _OF_A_MAP if getattr(asked, name) and not getattr(current, name)]
    if is_known and lost:
        names = " and ".join(filter(None, (", ".join(lost[:-1]), lost[-1])))
        session.note(f"The page ignores the link's {names}, chosen on that map.")
    layouts = scene.projection.layouts
    if is_known and asked.layout is not None and asked.layout not in layouts:
        session.note(f"This projection has no layout '{_cut(asked.layout)}': {shown['layout']}.")
    if is_known and asked.model is not None and current.model is None:
        session.note(f"There is no model '{_cut(asked.model)}' here: {shown['model']}.")


def check_details(scene: Scene) -> None:
    """Report parts of the selection that the chosen map doesn't have, and drop them."""
    chosen, n = session.current(), scene.n_neurons
    where = f"Layer {scene.layer}, {site_words(scene.site)},"
    if chosen.neuron is not None and chosen.neuron >= n:
        session.note(f"{where} has no neuron {chosen.neuron:,}: no neuron is selected.")
        session.change(neuron=None)
    if chosen.isolate is not None and chosen.isolate >= n:
        session.note(f"{where} has no neuron {chosen.isolate:,}: all neurons are shown.")
        session.change(isolate=None)
    beyond = sum(neuron >= n for neuron in chosen.marked)
    if beyond:
        session.note(f"{where} lacks {beyond:,} of the marked neurons: the rest are marked.")
        session.change(marked=tuple(neuron for neuron in chosen.marked if neuron < n))
    if chosen.grouping is not None and read_grouping(chosen.grouping) is None:
        session.note(
            f"The link's pole settings '{_cut(chosen.grouping)}' can't be read: the usual ones are "
            "used."
        )
        session.change(grouping=None, pole=chosen.pole)
    if chosen.color is not None and chosen.color not in coloring.COLORS:
        session.note(
            f"The map has no colouring '{_cut(chosen.color)}': points are coloured as usual."
        )
        session.change(color=None)
    if chosen.order is not None and chosen.order not in ORDERS:
        session.note(
            f"The heatmap has no order '{_cut(chosen.order)}': '{ORDERS[USUAL_ORDER]}' is used."
        )
        session.change(order=None)
    # If poles are not known yet, a later run of the page checks again.
    poles = None if chosen.pole is None else poles_shown(scene, scene.site)
    if poles is not None and chosen.pole is not None and chosen.pole >= len(poles.poles):
        session.note(f"{where} has no pole {chosen.pole:,}: no pole is selected.")
        session.change(pole=None)


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]} …"
