"""A lens as a page: a grid of readings by tokens, and curves of KL and entropy over the layers."""

from __future__ import annotations

import html
import math

import plotly.graph_objects as go
import torch

from projector.corpus.pieces import readable
from projector.figures.page import Section, Table, page_html
from projector.figures.words import TEMPLATE
from projector.residual.flow.words import number
from projector.residual.lens import Lens
from projector.residual.readings.words import (
    baseline_words,
    outlier_words,
    percent,
    reading_words,
    settled_words,
)

MOST_TOKENS = 256
_MOST_LABELS = 40
_BLUE, _ORANGE, _GREY = "#2166ac", "#b35806", "#52606d"
_STYLE = """<style>
.lens { overflow-x: auto; border: 1px solid #cbd2d9; }
.lens table { border-collapse: separate; border-spacing: 1px; font: .8rem ui-monospace, monospace; }
.lens th, .lens td { border: 0; padding: .15rem .4rem; max-width: 8rem; overflow: hidden;
  text-overflow: ellipsis; }
.lens th { position: sticky; background: #fff; text-align: left; z-index: 1; }
.lens th:first-child { left: 0; z-index: 2; text-align: right; }
.lens td { background: rgb(33 102 172 / calc(var(--s) * .55)); cursor: default; }
.lens td.own { font-weight: 700; }
.lens td:hover { outline: 2px solid #b35806; }
#tip { position: fixed; display: none; white-space: pre; pointer-events: none; z-index: 9;
  padding: .5rem .7rem; border-radius: .3rem; font: .85rem/1.45 ui-monospace, monospace;
  background: #1f2933; color: #f5f7fa; max-width: 28rem; overflow: hidden; }
@media (prefers-color-scheme: dark) { .lens th { background: #14181d; }
  .lens { border-color: #323f4b; } #tip { background: #e4e7eb; color: #14181d; } }
</style>"""
_SCRIPT = """<div id="tip"></div><script>
(() => {
  const tip = document.getElementById("tip");
  const grid = document.querySelector(".lens");
  grid.addEventListener("mousemove", (event) => {
    const cell = event.target.closest("[data-tip]");
    tip.style.display = cell ? "block" : "none";
    if (!cell) return;
    tip.textContent = cell.dataset.tip;
    const x = event.clientX + 16, y = event.clientY + 16;
    tip.style.left = Math.max(4, Math.min(x, innerWidth - tip.offsetWidth - 8)) + "px";
    tip.style.top = (y + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 32 : y) + "px";
  });
  grid.addEventListener("mouseleave", () => { tip.style.display = "none"; });
  const corner = grid.querySelector("thead th");
  grid.scrollLeft = corner ? grid.scrollWidth : 0;
})();
</script>"""


def lens_page(found: Lens, plain: Lens | None = None) -> str:
    """The whole report as HTML.

    Args:
        plain: the logit lens of the same prompt, if ``found`` is a tuned lens.
    """
    n_shown = min(MOST_TOKENS, len(found.positions))
    cut = "" if n_shown == len(found.positions) else f" The last {n_shown} tokens are shown."
    grid = (
        f"Each row is a reading of the stream, the first at the top; each column a token of the "
        f"prompt. A cell shows the {found.lens}'s top next token: bold if it is "
        "the model's own top token, the bluer the closer the whole distribution is to the model's "
        f"own (exp(−KL)). Point at a cell for its top tokens.{cut}"
    )
    kl = [each.kl for each in found.summaries]
    loss = [each.loss for each in found.summaries]
    sections = [
        Section("Layers and tokens", grid, trusted_html=_STYLE + _grid(found, n_shown) + _SCRIPT),
        Section(
            "Distance of each layer from the prediction",
            "KL(final ‖ lens) in nats: the loss from using the lens's distribution instead of "
            "the model's own. The line is the mean over tokens, the band the middle half of "
            f"them. {_clip_words(found, 'the mean', kl)}{baseline_words(found)} "
            f"{_missing(found)}\n\n{outlier_words(found)}",
            kl_figure(found, plain),
        ),
        Section(
            "Confidence and loss of the lens",
            "Entropy of the lens's distribution, and its loss: −log of the probability of the "
            "prompt's next token; both in nats, mean over tokens. A lens whose loss is far "
            f"above its entropy is confident and wrong. {_clip_words(found, 'the loss', loss)}",
            entropy_figure(found),
        ),
        Section("Averages", table=_averages(found, plain)),
    ]
    return page_html(title(found), _lead(found), sections)


def title(found: Lens) -> str:
    """The title of the page."""
    return f"{found.lens.capitalize()} of {found.model}"


def _lead(found: Lens) -> str:
    how = (
        "through the model's own final norm and head"
        if found.lens == "logit lens"
        else "through one trained affine map per layer, then the model's own final norm and head"
    )
    return (
        f"The stream of {len(found.ids):,} tokens, read at {len(found.readings)} places {how}. "
        f"The last row is the model's own prediction.\n\n{settled_words(found)}"
    )


def _missing(found: Lens) -> str:
    if found.missing is None:
        return ""
    return f"There is no reading between attention and MLP: {found.missing}."


def _grid(found: Lens, n_shown: int) -> str:
    places = range(len(found.positions))[-n_shown:]
    heads = "".join(
        f'<th title="position {found.positions[k]}">'
        f"{html.escape(readable(found.tokens[found.positions[k]]))}</th>"
        for k in places
    )
    lines = []
    for s, reading in enumerate(found.readings):
        cells = "".join(_cell(found, s, k) for k in places)
        name = (
            f'<th title="{html.escape(reading_words(reading))}">{html.escape(reading.label)}</th>'
        )
        lines.append(f"<tr>{name}{cells}</tr>")
    return (
        f'<div class="lens"><table><thead><tr><th>prompt</th>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _cell(found: Lens, reading: int, place: int) -> str:
    top = found.top(reading, place)
    kl, rank = float(found.kl[reading, place]), int(found.rank[reading, place])
    share = math.exp(-kl) if math.isfinite(kl) else 0.0
    position = found.positions[place]
    told = [
        f"{reading_words(found.readings[reading])}, after {readable(found.tokens[position])}",
        *(f"{percent(each):>7}  {readable(token)}" for token, _, each in top),
    ]
    if rank:
        true = percent(float(found.probability[reading, place]))
        told.append(f"next: {readable(found.tokens[position + 1])}  {true}, rank {rank:,}")
    told.append(f"entropy {float(found.entropy[reading, place]):.2f}, KL {kl:.2f} nats")
    is_own = bool(found.top_ids[reading, place, 0] == found.top_ids[-1, place, 0])
    kind = ' class="own"' if is_own else ""
    tip = html.escape("\n".join(told)).replace("\n", "&#10;")
    shown = html.escape(readable(top[0][0]))
    return f'<td{kind} style="--s:{share:.2f}" data-tip="{tip}">{shown}</td>'


def kl_figure(found: Lens, plain: Lens | None = None) -> go.Figure:
    """KL over readings: mean, middle half of the tokens, and the baseline."""
    figure = go.Figure()
    labels = [reading.label for reading in found.readings]
    kl = found.kl[:, found.counted].double()
    if kl.shape[1] > 3:
        low, high = (torch.quantile(kl, q, dim=1).tolist() for q in (0.25, 0.75))
        figure.add_scatter(
            x=labels + labels[::-1],
            y=high + low[::-1],
            mode="lines",
            fill="toself",
            fillcolor="rgba(33,102,172,.15)",
            line={"width": 0},
            hoverinfo="skip",
            name="middle half of the tokens",
        )
    _line(figure, labels, [each.kl for each in found.summaries], found.lens, _BLUE)
    if plain is not None:
        names = [reading.label for reading in plain.readings]
        known = {n: each.kl for n, each in zip(names, plain.summaries, strict=True)}
        _line(figure, labels, [known.get(label) for label in labels], plain.lens, _ORANGE)
    if found.baseline is not None:
        figure.add_scatter(
            x=[labels[0], labels[-1]],
            y=[found.baseline] * 2,
            mode="lines",
            line={"dash": "dash", "color": _GREY},
            name="best fixed guess, the same at every token",
        )
    return _laid_out(
        figure,
        labels,
        "KL(final ‖ lens), nats",
        _clip(found, [each.kl for each in found.summaries]),
    )


def _clip(found: Lens, values: list[float | None]) -> float | None:
    """Where an axis ends, where readings before the first block's end would flatten all others;
    None if they would not."""
    n_first = _n_first(found)
    first = [value for value in values[:n_first] if value is not None]
    highest = max((value for value in values[n_first:] if value is not None), default=0.0)
    # Room for the band around the mean.
    return 1.6 * highest if first and max(first) > 2 * highest > 0 else None


def _n_first(found: Lens) -> int:
    """Readings before the first block's end."""
    are_ends = [reading.stream == "resid_post" for reading in found.readings]
    return are_ends.index(True) if True in are_ends else 0


def _clip_words(found: Lens, what: str, values: list[float | None]) -> str:
    if _clip(found, values) is None:
        return ""
    first = [
        f"{number(value, '.1f')} at {reading.label}"
        for reading, value in zip(found.readings, values, strict=True)
    ][: _n_first(found)]
    return (
        f"The axis is cut so that later layers can be seen: {what} begins at {', '.join(first)}. "
    )


def entropy_figure(found: Lens) -> go.Figure:
    """Entropy and loss over readings."""
    figure = go.Figure()
    labels = [reading.label for reading in found.readings]
    _line(figure, labels, [each.entropy for each in found.summaries], "entropy", _BLUE)
    _line(figure, labels, [each.loss for each in found.summaries], "loss", _ORANGE)
    end = _clip(found, [each.loss for each in found.summaries])
    return _laid_out(figure, labels, "nats", end)


def _line(
    figure: go.Figure, labels: list[str], values: list[float | None], name: str, color: str
) -> None:
    is_mid = [label.endswith("mid") for label in labels]
    figure.add_scatter(
        x=labels,
        y=values,
        mode="lines+markers",
        name=name,
        line={"color": color},
        marker={"symbol": ["circle-open" if mid else "circle" for mid in is_mid], "size": 8},
        hovertemplate="%{x}: %{y:.3f}<extra>" + name + "</extra>",
    )


def _laid_out(figure: go.Figure, labels: list[str], title: str, end: float | None) -> go.Figure:
    figure.update_layout(
        template=TEMPLATE,
        height=380,
        margin={"l": 60, "r": 20, "t": 20, "b": 60},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"},
        xaxis={
            "title": "layer and place: before it, after its attention (mid), after its MLP (post)",
            "categoryorder": "array",
            "categoryarray": labels,
            # More names than that touch each other.
            "tickvals": labels if len(labels) <= _MOST_LABELS else _ends(labels),
        },
        yaxis={"title": title, "rangemode": "tozero", "range": None if end is None else [0, end]},
    )
    return figure


def _ends(labels: list[str]) -> list[str]:
    """The first reading and each block's last."""
    return [label for k, label in enumerate(labels) if k == 0 or label.endswith("post")]


def _averages(found: Lens, plain: Lens | None) -> Table:
    columns = [
        "layer",
        "stream",
        "KL(final ‖ lens)",
        "entropy",
        "loss",
        "top token is the model's own",
    ]
    known: dict[tuple[int, str], float | None] = {}
    if plain is not None:
        columns.insert(3, f"KL(final ‖ {plain.lens})")
        known = {(each.layer, each.stream): each.kl for each in plain.summaries}
    rows = []
    for each in found.summaries:
        cells: list[str | None] = [f"{each.layer}", each.stream, number(each.kl, ".3f")]
        if plain is not None:
            cells.append(number(known.get((each.layer, each.stream)), ".3f"))
        cells += [number(each.entropy, ".3f"), number(each.loss, ".3f"), percent(each.agreement)]
        rows.append(tuple(cells))
    return Table(tuple(columns), tuple(rows))
