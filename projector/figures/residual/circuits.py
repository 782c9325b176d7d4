"""Circuits of heads as sections of a page: pairs of tokens, composition, paths through two
heads.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence

from projector.corpus.pieces import readable
from projector.figures.page import Section, Table
from projector.figures.residual.attribution import signed
from projector.residual.circuits.composition import KINDS as COMPOSITION_KINDS
from projector.residual.circuits.pairs import TopPairs
from projector.residual.circuits.tokens import HeadPairs
from projector.residual.circuits.virtual import VirtualHeads
from projector.residual.flow.words import number
from projector.residual.heads.report import HeadsReport

_N_COMPOSITIONS, _N_READERS, _N_PLACES = 8, 8, 2


def head_name(head: Sequence[int]) -> str:
    """The name of a head: ``L3 H2``."""
    return f"L{head[0]} H{head[1]}"


def signed_low(value: float, digits: int = 2) -> str:
    """A number with a typographic minus and without a plus."""
    return number(value, f".{digits}f")


def pairs_html(found: HeadsReport, pairs: HeadPairs) -> str:
    """The pairs of tokens that a head connects, OV next to QK."""
    tried = (
        f"all {pairs.n_tokens:,} ordinary tokens"
        if pairs.n_tokens >= pairs.n_vocabulary
        else f"the first {pairs.n_tokens:,} tokens of {pairs.n_vocabulary:,}"
    )
    left = ", ".join(pairs.left_out)
    without = f" QK leaves out: {left}." if left else ""
    note = f'<p class="note">{html.escape(f"Among {tried}.{without}")}</p>'
    shown = [("Reading the embedding alone:", pairs.ov, pairs.qk)]
    if pairs.mlp_ov is not None and pairs.mlp_qk is not None:
        through = "Reading the embedding after the MLPs before the head:"
        shown.insert(0, (through, pairs.mlp_ov, pairs.mlp_qk))
    style = "display:flex;flex-wrap:wrap;gap:1rem 2.5rem"
    return note + "".join(
        f'<p class="note">{what}</p><div style="{style}">'
        f"{_pair_table(found, 'OV: source', 'raises the logits of', ov)}"
        f"{_pair_table(found, 'QK: query', 'attends to', qk)}</div>"
        for what, ov, qk in shown
    )


def _pair_table(found: HeadsReport, first: str, second: str, pairs: TopPairs) -> str:
    rows = []
    for source, targets, scores in zip(
        pairs.from_ids.tolist(), pairs.to_ids.tolist(), pairs.scores.tolist(), strict=True
    ):
        named = "  ".join(readable(found.text(target)) for target in targets)
        cells = (readable(found.text(source)), named)
        rows.append(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}"
            f'<td class="number">{signed_low(scores[0], 1)}</td></tr>'
        )
    return (
        f'<div class="scroll"><table><thead><tr><th>{html.escape(first)}</th>'
        f'<th>{html.escape(second)}</th><th class="number">highest</th></tr></thead><tbody>'
        f'{"".join(rows)}</tbody></table><p class="note">Random: '
        f"{signed_low(pairs.control, 1)}. One standard deviation of all pairs: "
        f"{pairs.spread:.1f}.</p></div>"
    )


def composition_sections(found: HeadsReport) -> Iterator[Section]:
    """The strongest compositions of each kind; empty if there are none."""
    compositions = found.compositions
    if compositions is None or not compositions.strength.shape[1]:
        return
    shares = compositions.share_above()
    above = ", ".join(f"{kind} {100 * shares[kind]:.0f} %" for kind in COMPOSITION_KINDS)
    rows = tuple(
        (
            each.kind,
            head_name(each.later),
            head_name(each.earlier),
            f"{each.strength:.3f}",
            f"{each.null_mean:.3f} ± {each.null_std:.3f}",
            f"{each.percentile:.1f}",
            f"{each.times_typical:.1f}",
        )
        for kind in COMPOSITION_KINDS
        for each in compositions.strongest(_N_COMPOSITIONS, kind)
    )
    yield Section(
        "Composition",
        "How strongly a later head reads an earlier head's output, by their weights: ‖W₂ W₁‖ / "
        "(‖W₂‖ ‖W₁‖), from 0 to 1, through the later head's queries (Q), keys (K) or values "
        "(V). Next to it is the same for random matrices with the same singular values: mean, "
        f"standard deviation, and the share of {compositions.n_random} that are weaker.\n\nPairs "
        f"of trained heads beyond 99 % of their random pairs: {above}. Trained heads share "
        "directions of the stream, so exceeding chance means little here; the last column "
        "compares a pair with the median pair of its kind. Norms' scales are left out.",
        table=Table(
            ("by", "later", "earlier", "strength", "random", "percentile", "times median"), rows
        ),
    )


def virtual_sections(found: HeadsReport) -> Iterator[Section]:
    """Paths of the prompt through two heads; empty without a prompt."""
    virtual, prompt = found.virtual, found.prompt
    if virtual is None or prompt is None:
        return
    yield _paths_section(found, virtual, prompt.texts)
    yield _readers_section(virtual)


def _paths_section(found: HeadsReport, virtual: VirtualHeads, texts: Sequence[str]) -> Section:
    goal = virtual.inputs.goal
    rows = tuple(
        (
            f"{head_name(each.first)} → {head_name(each.second)}",
            signed(each.value, 3),
            f"{signed(100 * each.share, 1)} %",
            f"{signed(100 * each.share_of_second, 0)} %",
            None if each.token_percentile is None else f"{each.token_percentile:.1f}",
            _places(each.from_positions, texts),
            _places(each.via_positions, texts),
        )
        for each in virtual.rows
    )
    what = f"the logit of {_quoted(found.text(goal.token))}"
    if goal.against is not None:
        what += f" minus that of {_quoted(found.text(goal.against))}"
    return Section(
        "Paths through two heads",
        "Two heads in a row are one product, (A₂ ⊗ W_OV₂)(A₁ ⊗ W_OV₁) = A₂A₁ ⊗ W_OV₂W_OV₁: a "
        "virtual head. The first head takes from the tokens under “from” and writes at the "
        f"tokens under “via”, where the second reads it for position {virtual.position}. The "
        f"table shows the {len(rows)} paths that change {what} most. Norms' scales are held at "
        "their values on this prompt; biases are separate parts.\n\nThe stream gives this "
        f"{'logit' if goal.against is None else 'difference'} {signed(goal.from_stream, 2)}, and "
        f"the model's own is {signed(goal.logit, 2)}; all paths through two heads together "
        f"{signed(virtual.through_two, 2)}. {_control_text(virtual)} “Of all paths” is a path's "
        "share of Σ |value| over all paths through two heads. The percentile is the share of "
        "the vocabulary whose logits the path raises less than this token's.",
        table=Table(
            ("path", "adds", "of all paths", "of 2nd head", "percentile", "from", "via"),
            rows,
        ),
    )


def _control_text(virtual: VirtualHeads) -> str:
    if not virtual.control:
        return ""
    sizes = sorted(virtual.control)
    return (
        f"For {len(sizes)} random tokens instead of this one, the strongest path changes the "
        f"logit by {sizes[len(sizes) // 2]:.2f} in the median and {sizes[-1]:.2f} at most, so a "
        "path that adds no more than that is not specific to this token."
    )


def _places(places: Sequence[tuple[int, float]], texts: Sequence[str]) -> str:
    return "  ".join(
        f"{readable(texts[position])} [{position}] {signed(value, 2)}"
        for position, value in places[:_N_PLACES]
    )


def _readers_section(virtual: VirtualHeads) -> Section:
    inputs = virtual.inputs
    order = inputs.own.abs().argsort(descending=True, stable=True)[:_N_READERS].tolist()
    groups: dict[str, list[int]] = {"embedding": [], "heads": [], "MLPs": [], "biases": []}
    for row, (name, head) in enumerate(zip(inputs.parts, inputs.part_heads, strict=True)):
        if head is not None or name.endswith("attention"):
            groups["heads"].append(row)
        elif name.endswith("MLP"):
            groups["MLPs"].append(row)
        elif "bias" in name:
            groups["biases"].append(row)
        else:
            groups["embedding"].append(row)
    rows = tuple(
        (
            head_name(inputs.heads[column]),
            signed(float(inputs.own[column]), 3),
            *(signed(float(inputs.values[each, column].sum()), 3) for each in groups.values()),
        )
        for column in order
    )
    return Section(
        "What the strongest heads pass on",
        "What each head adds to the same logit, and how much of it comes from the embedding, from "
        "earlier heads, from earlier MLPs and from biases. The four sum to what the head adds; "
        f"the largest error over all heads is {inputs.closure_error:.1e} of a head's parts.",
        table=Table(("head", "adds", *(f"from {name}" for name in groups)), rows),
    )


def _quoted(text: str) -> str:
    return f"“{readable(text)}”"
