"""The experiment on tiny models: every row, at equal operations, and whom it can't be made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from projector.errors import UserError
from projector.model.architecture.finding import find_architecture
from pruning.reuse.comparing import report_of
from pruning.reuse.experiment import Experiment, check_reusable, most_share, plan_rows
from pruning.reuse.partners import LayerPartners, gather_partners, partners_from
from pruning.reuse.records import (
    DENSE,
    EARLY_WRITE,
    MIXED,
    MIXED_RANDOM,
    RANDOM_PARTNERS,
    REMOVAL,
    REUSE,
)
from pruning.reuse.settings import ReuseSettings
from pruning.scoring.windows import prepare
from tests.conftest import make_text
from tests.families import build
from tests.pruning.reuse.replacing.subjects import (
    PLANTED,
    subject,
    three_layers,
    with_duplicates,
)
from tests.refused import refused


def experiment(model: Any, tokenizer: Any, settings: ReuseSettings) -> Experiment:
    given = subject(model, tokenizer)
    text = prepare([make_text(150, seed=90)], tokenizer, 24, max_windows=settings.n_windows)
    partners = gather_partners(given.loaded, given.architecture, given.text.corpus)
    return Experiment(given.loaded, given.architecture, given.text, text, partners, settings)


def test_every_row_is_made_at_equal_operations_and_none_changes_nothing(tokenizer: Any) -> None:
    settings = ReuseSettings(shares=(0.0, 0.045), n_seeds=1, n_sequences=20, n_windows=6, seed=3)
    found = experiment(with_duplicates(), tokenizer, settings)
    keys = plan_rows(settings)
    rows = {}
    for key in keys:
        rows[key.method, key.share] = found.row(key, list(rows.values()))
        assert rows[key.method, key.share].key == key
    dense = rows[DENSE, 0.0]
    assert len(dense.nll_windows) == 6
    for (_, share), row in rows.items():
        assert row.counted == row.products
        if share == 0:
            assert row.nll_windows == dense.nll_windows
            assert row.n_changed == 0
        else:
            assert row.saved is not None
            # What is saved is within a neuron of what was asked for.
            assert 0.045 <= row.saved < 0.045 + 2 / 80
    # Neurons that have a duplicate cost nothing to reuse, and removing them does.
    exact, removed = rows[REUSE, 0.045], rows[REMOVAL, 0.045]
    assert max(abs(a - b) for a, b in zip(exact.nll_windows, dense.nll_windows, strict=True)) < 1e-4
    assert exact.r2 is not None
    assert exact.r2 > 1 - 1e-6
    assert exact.n_changed > removed.n_changed == rows[EARLY_WRITE, 0.045].n_changed
    drawn = rows[RANDOM_PARTNERS, 0.045]
    assert (drawn.operations, drawn.n_changed) == (exact.operations, exact.n_changed)
    assert drawn.r2 is not None
    assert drawn.r2 < 0.9
    # Where it pays: the duplicates, which are worth their columns, and no other.
    mixed, own = rows[MIXED, 0.045], rows[MIXED_RANDOM, 0.045]
    assert (mixed.n_reused, mixed.n_removed) == (len(PLANTED), 0) == (exact.n_reused, 0)
    assert mixed.nll_windows == pytest.approx(exact.nll_windows, abs=1e-5)
    assert (own.n_reused, own.operations) == (len(PLANTED), mixed.operations)
    assert rows["obs", 0.045].n_reused == removed.n_reused == 0 < removed.n_removed
    report = report_of({}, {}, tuple(rows.values()), settings.pruning_method, found.notes())
    assert {each.against for each in report.comparisons} == {
        REMOVAL,
        RANDOM_PARTNERS,
        MIXED_RANDOM,
        EARLY_WRITE,
        "obs",
    }


def test_several_partners_are_tried_only_where_one_beats_random_ones(tokenizer: Any) -> None:
    settings = ReuseSettings(
        shares=(0.05,), n_seeds=1, n_sequences=20, n_windows=6, seed=3, n_partners=2
    )
    found = experiment(three_layers(), tokenizer, settings)
    keys = plan_rows(settings)
    first = [key for key in keys if key.method in (REUSE, RANDOM_PARTNERS)][:2]
    rows = [found.row(key) for key in first]
    last, control = keys[-2:]
    assert [(key.method, key.n_partners) for key in keys[-2:]] == [(REUSE, 2), (RANDOM_PARTNERS, 2)]
    level = {
        # The same windows, on which random partners are made much worse, or equal.
        worse: [
            rows[0],
            type(rows[1])(
                **{
                    **vars(rows[1]),
                    "nll_windows": tuple(each + worse for each in rows[0].nll_windows),
                }
            ),
        ]
        for worse in (0.0, 1.0)
    }
    assert found.row(last, level[0.0]).reason is not None
    row = found.row(last, level[1.0])
    assert row.reason is None
    assert row.counted == row.products
    assert row.n_changed > 0
    drawn = found.row(control, [*level[1.0], row])
    assert (drawn.operations, drawn.n_reused) == (row.operations, row.n_reused)
    assert drawn.r2 < row.r2


def test_models_that_can_not_be_computed_so_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    model = build("llama")
    architecture = find_architecture(model)
    # All but the columns of one of two layers.
    assert most_share(architecture) == pytest.approx(1 / 3)
    # Rounded down, to a share that is taken.
    with refused("shares", 0.4, "0.33"):
        experiment(model, tokenizer, ReuseSettings(shares=(0.4,), n_seeds=1, n_sequences=20))
    with refused("shares", 0.67, "0.66"):
        ReuseSettings(shares=(0.67,))
    with pytest.raises(UserError):
        check_reusable(find_architecture(build("mixtral")))
    given = subject(model, tokenizer)
    known = gather_partners(given.loaded, architecture, given.text.corpus)
    with refused("projection"):
        LayerPartners(known.layers[:1], known.n_tokens).check([40, 40])
    assert bool((known.layers[0].layer == -1).all())
    assert bool((known.layers[1].layer == 0).all())
    with pytest.raises(UserError):
        partners_from(tmp_path)

    class Normed(torch.nn.Module):
        """Neurons that depend on one another."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            mlp = self.inner
            h = mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)
            return mlp.down_proj(h / (1e-3 + h.square().mean(dim=-1, keepdim=True)).sqrt())

    model.model.layers[1].mlp = Normed(model.model.layers[1].mlp)
    with refused("model"):
        check_reusable(find_architecture(model))
