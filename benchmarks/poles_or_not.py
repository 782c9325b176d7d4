"""Test if methods remove neurons of poles: ``python -m benchmarks.poles_or_not MODEL``.

Counts how many neurons of distinct poles a method removes, compared with removing random neurons of
each layer, with exact mean and standard deviation. Where `wanda` is among the methods, chance is
also given among neurons that weigh about as much: those that as many of its plans remove. Plans are
made as ``pruning prune`` makes them, from each seed's calibration text, and kept in the folder of
``--out``.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pruning.terminal.options  # noqa: F401  It names the options in messages.
from benchmarks.results import describe_machine
from projector.errors import SettingError, UserError, named
from projector.storage.places import disk_errors
from projector.storage.replacing import replacing_file
from projector.storage.resuming import told_difference
from projector.terminal.options import option_words
from pruning.calibration.text import read_calibration
from pruning.layerwise.files import LayerFiles
from pruning.layerwise.making import LayerMaker
from pruning.layerwise.overlap import (
    Overlap,
    check_same_layers,
    emptied,
    members_of,
    overlap,
    pooled,
    redundant_in,
    strata_of,
)
from pruning.layerwise.recipes import Recipe
from pruning.limits import DEFAULT_SEQUENCES
from pruning.methods.plan import LayerPlan, PruningPlan
from pruning.methods.planning import check_sparsity
from pruning.methods.registry import method_named
from pruning.poles.finding_all import PoleRequest, find_all
from pruning.poles.poles import Poles
from pruning.preparing import load_prunable, pruning_versions

# The counts and their names.
COUNTS: dict[str, Callable[[Poles, LayerPlan], Overlap]] = {
    "members of distinct poles": lambda poles, plan: overlap(members_of(poles), plan),
    "all but the most central": lambda poles, plan: overlap(redundant_in(poles), plan),
    "distinct poles, whole": emptied,
}
_MEMBERS = next(iter(COUNTS))
# A method that scores neurons separately: it removes neurons with lower scores than those it keeps.
_BY_WEIGHT = "wanda"
_LIKE_WEIGHT = "members, among neurons of like weight"
Key = tuple[str, float, int]


def check_asked(folder: Path, model: str, calibration: str, n_sequences: int) -> None:
    """Record what plans are made from, besides method, share and seed; or compare it with the
    record.

    Raises:
        UserError: if the saved plans were made from other input.
    """
    asked = {"model": model, "calibration": calibration, "n_sequences": n_sequences}
    _check(folder, "asked", asked)


def _check(folder: Path, what: str, facts: Mapping[str, Any]) -> None:
    path = folder / f"{what}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    difference = None if known is None else told_difference(known, facts)
    if known is None and any(folder.glob("*-*-*.json")):
        difference = "it is not known what they were made from"
    if difference is not None:
        raise UserError(
            f"the plans in '{folder}' are of another run: {difference}. Give another folder for "
            f"{named('out')}",
            setting="out",
            value=str(folder),
        )
    if known is None:
        _write(path, facts)


def path_of(folder: Path, key: Key) -> Path:
    """The file of the plan with a method, share and seed."""
    method, share, seed = key
    return folder / f"{method}-{share:g}-{seed}.json"


def make_plans(
    folder: Path, keys: Sequence[Key], model: str, calibration: str, n_sequences: int
) -> None:
    """Make missing plans; all methods and shares of a seed in one pass.

    Raises:
        UserError: if saved plans were made from another model or text.
    """
    check_asked(folder, model, calibration, n_sequences)
    missing = [key for key in keys if not path_of(folder, key).exists()]
    if not missing:
        return
    loaded, architecture = load_prunable(model)
    text = read_calibration(
        calibration, loaded, architecture, sequence_length=None, n_sequences=n_sequences
    )
    # The files behind the names may have changed since.
    read = {
        "model": loaded.weights_sha256,
        "calibration": text.corpus.sha256,
        "sequence_length": text.sequence_length,
        "versions": pruning_versions(),
    }
    _check(folder, "read", read)
    for seed in dict.fromkeys(seed for _, _, seed in missing):
        corpus = text.draw(n_sequences, seed)
        recipes = [Recipe(m, "none", share) for m, share, own in missing if own == seed]
        for recipe in recipes:
            recipe.check(loaded.model, architecture, corpus, has_proposals=False)
        files = LayerFiles(folder / f"seed-{seed}.layers", {"seed": seed}, recipes)
        files.remove()
        maker = LayerMaker(loaded.model, architecture, corpus, recipes, files, seed=seed)
        made = [each for _, each in maker.layers(maker.shapes())]
        for recipe in recipes:
            layers = tuple(each[recipe].plan for each in made)
            plan = PruningPlan(recipe.method, recipe.sparsity, seed, "uniform", 1, layers)
            _write(path_of(folder, (recipe.method, recipe.sparsity, seed)), plan.to_dict())
        files.remove()


def read_plan(path: Path) -> PruningPlan:
    """Read a saved plan."""
    try:
        return PruningPlan.from_dict(json.loads(path.read_text(encoding="utf-8")), path)
    except ValueError as error:
        raise UserError(f"'{path}' is damaged: delete it and start again") from error


def _write(path: Path, values: object) -> None:
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing_file(path) as partial:
            partial.write_text(json.dumps(values) + "\n", encoding="utf-8")


def rows_of(poles: Sequence[Poles], plan: PruningPlan) -> dict[str, list[Overlap]]:
    """The overlap in every layer, for each count."""
    check_same_layers(poles, plan.layers)
    pairs = list(zip(poles, plan.layers, strict=True))
    return {name: [count(*pair) for pair in pairs] for name, count in COUNTS.items()}


def add_like_weights(
    found: dict[Key, dict[str, list[Overlap]]],
    poles: Sequence[Poles],
    plans: dict[Key, PruningPlan],
) -> None:
    """Count members again, with chance only among neurons of similar weight."""
    for key, plan in plans.items():
        method, _, seed = key
        by_weight = [p for (m, _, s), p in plans.items() if m == _BY_WEIGHT and s == seed]
        if method == _BY_WEIGHT or not by_weight:
            continue
        found[key][_LIKE_WEIGHT] = [
            overlap(members_of(one), own, strata_of(beside))
            for one, own, *beside in zip(
                poles, plan.layers, *(each.layers for each in by_weight), strict=True
            )
        ]


def summary(found: dict[Key, dict[str, list[Overlap]]]) -> Iterator[str]:
    """A table with a row per method, share, seed and count, over all layers."""
    yield "| method | neurons removed | seed | what | there are | go | by chance | ratio | z |"
    yield "| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |"
    for (method, share, seed), counts in found.items():
        for name, layers in counts.items():
            cells = _cells(pooled(layers))
            yield f"| `{method}` | {100 * share:.0f} % | {seed} | {name} | {cells} |"


def by_layer(found: dict[Key, dict[str, list[Overlap]]]) -> Iterator[str]:
    """A table with a row per layer: removed members of distinct poles, for the first seed."""
    first = min(seed for _, _, seed in found)
    shown = {key[:2]: counts[_MEMBERS] for key, counts in found.items() if key[2] == first}
    heads = [f"`{method}`, {100 * share:.0f} %: go (by chance), z" for method, share in shown]
    yield f"| layer | members | {' | '.join(heads)} |"
    yield f"| ---: | ---: |{' ---: |' * len(heads)}"
    for layer, members in enumerate(next(iter(shown.values()))):
        cells = []
        for layers in shown.values():
            one = layers[layer]
            cells.append(
                f"{one.n_both} ({one.expected:.1f} ± {one.deviation:.1f}), {_signed(one.score, 1)}"
            )
        yield f"| {layer} | {members.n_marked} | {' | '.join(cells)} |"


def _cells(one: Overlap) -> str:
    ratio = "–" if one.ratio is None else f"{one.ratio:.2f}"
    return (
        f"{one.n_marked:,} | {one.n_both:,} | {one.expected:,.1f} ± {one.deviation:.1f} | {ratio} "
        f"| {_signed(one.score, 1)}"
    )


def _signed(value: float | None, n_digits: int) -> str:
    return "–" if value is None else f"{value:+.{n_digits}f}".replace("-", "−")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.poles_or_not", description=(__doc__ or "").partition("\n\n")[2]
    )
    parser.add_argument("model", metavar="MODEL", help="bundled, a local folder, or a hub id.")
    parser.add_argument("--projection", type=Path, required=True, help="The model's projection.")
    parser.add_argument("--calibration", required=True, help="Text to plan on, a source.")
    parser.add_argument("--out", type=Path, required=True, help="Folder for plans and the result.")
    parser.add_argument("--methods", default="obs,wanda", help="Comma-separated. %(default)s")
    parser.add_argument("--shares", default="0.2,0.5", help="Shares of neurons to remove.")
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="Number of seeds; each draws its own calibration sequences.",
    )
    parser.add_argument("--sequences", type=int, default=DEFAULT_SEQUENCES)
    parser.add_argument(
        "--space", help="Space of the poles: correlation (default) or abs-correlation."
    )
    return parser


def _keys(methods: str, shares: str, n_seeds: int) -> list[Key]:
    try:
        numbers = [float(part) for part in shares.split(",")]
    except ValueError:
        raise SettingError("shares", shares, "aren't numbers", "give for example 0.2,0.5") from None
    for share in numbers:
        check_sparsity(share, "shares")
    names = methods.split(",")
    for name in names:
        if method_named(name, "methods").needs_projection:
            raise SettingError("methods", name, "reads the poles themselves", "leave it out")
    return [(name, share, seed) for name in names for share in numbers for seed in range(n_seeds)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Find poles, plan, and print both tables."""
    given = _parser().parse_args(arguments)
    try:
        keys = _keys(given.methods, given.shares, given.seeds)
        request = PoleRequest(sites=("mlp_post",), space=given.space)
        poles = find_all(given.projection, request).poles
        plans = given.out / "plans"
        make_plans(plans, keys, given.model, given.calibration, given.sequences)
        kept = {key: read_plan(path_of(plans, key)) for key in keys}
        found = {key: rows_of(poles, plan) for key, plan in kept.items()}
        add_like_weights(found, poles, kept)
        values = {
            "machine": describe_machine(),
            "rows": [
                {"method": m, "share": share, "seed": seed, "what": name}
                | {"pooled": asdict(pooled(layers)), "layers": [asdict(one) for one in layers]}
                for (m, share, seed), counts in found.items()
                for name, layers in counts.items()
            ],
        }
        _write(given.out / "poles_or_not.json", values)
    except UserError as error:
        print(f"error: {' '.join(error.worded(option_words).split())}", file=sys.stderr)
        return 2
    print("\n".join([*summary(found), "", *by_layer(found)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
