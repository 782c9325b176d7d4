"""One record and one line make an objective: everything else reads the record."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import projector
from projector.errors import SettingError
from projector.fitting.budget import reckon_needs
from projector.fitting.estimating import estimate
from projector.fitting.preparing import prepare
from projector.fitting.settings import FitSettings
from projector.layouts.objective import (
    DEFAULT_SOLVER,
    Column,
    Method,
    Objective,
    Placement,
    Settings,
    each_placed,
)
from projector.layouts.registry import OBJECTIVES, dim_help, objective_help, register
from projector.layouts.settings import Layout, parse_layout
from projector.layouts.solvers.online import OnlineTrainer
from projector.settings import setting
from projector.terminal.cli import app
from tests.refused import refused

Checkpoint = Callable[[str], Path]
ONE_MAP = ("--layers", "0", "--sites", "mlp_post", "--device", "cpu")
TIMED: list[int] = []


def _around(rho: Tensor, layout: Settings) -> Placement:
    angle = torch.arange(len(rho)) * (2 * math.pi / len(rho))
    return Placement(
        torch.stack([angle.cos(), angle.sin()], dim=1)[:, : layout.dim],
        {"ring": {"radius": 1.0, "n": len(rho)}},
    )


def _seconds(n: int, layout: Settings, device: torch.device) -> float:
    TIMED.append(n)
    return 1e6


NO_DISTANCE = "a ring keeps no distance"
RING = Objective(
    name="ring",
    help="all on a circle",
    methods={
        DEFAULT_SOLVER: Method(
            name="turn", place=each_placed(_around), pair_bytes=5000, seconds=_seconds
        )
    },
    dim=2,
    most_dim=2,
    lacks={"distances": NO_DISTANCE},
    own=("ring",),
    columns=(Column("radius", lambda figures: figures["ring"]["radius"], "{:.2f}"),),
    legend="radius of the ring that a person made up",
    evenly="its neurons stand on a circle",
    read="Angles alone tell something.",
    then="linear",
)


def _outside(points: Tensor, rho: Tensor, p: float) -> Tensor:
    return (points.norm(dim=1) - 2).square().mean()


def _on_a_sphere(points: Tensor) -> Tensor:
    return 5 * points / points.norm(dim=1, keepdim=True)


SPRING = replace(
    RING,
    name="spring",
    help="trained to a sphere",
    methods={**RING.methods, "drill": Method(name="drill", reads=frozenset({"lr"}))},
    loss=_outside,
    finish=_on_a_sphere,
    own=(),
    columns=(),
    then="",
)


@pytest.fixture
def spring() -> Iterator[Objective]:
    register(SPRING)
    yield SPRING
    del OBJECTIVES[SPRING.name]


@pytest.fixture
def ring() -> Iterator[Objective]:
    register(RING)
    yield RING
    del OBJECTIVES[RING.name]


def run(*args: object) -> str:
    result = CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_registered_objective_is_served_by_every_command(
    ring: Objective, checkpoint: Checkpoint, text_file: Path, tmp_path: Path
) -> None:
    model = checkpoint("qwen2")
    for command in ("fit", "layout", "relayout"):
        words = " ".join(run(command, "--help").split())
        assert f"ring: {ring.help}" in words.replace("│ │ ", "").replace("│ ", "")
    fitted = tmp_path / "fitted"
    said = run(
        "fit", model, "--corpus", text_file, *ONE_MAP, "--objective", "ring", "--out", fitted,
        "--pictures",
    )  # fmt: skip
    for words in ("radius", "1.00", "a person made up", "--objective linear"):
        assert words in said
    assert "stress-1" not in said
    told = run("info", fitted)
    for words in ("ring by turn, 2-D", "ring-2d", "1.00", "a person made up"):
        assert words in told
    value = json.loads(run("info", fitted, "--json"))
    figures = value["maps"][0]
    assert figures["ring"]["radius"] == 1.0
    assert figures["stress"] is None
    assert figures["reasons"]["stress"] == NO_DISTANCE
    assert figures["neighbour_overlap"] is not None
    assert figures["stability"] is not None

    assert "ring-1d" in run("layout", fitted, "--objective", "ring", "--dim", "1")
    assert "ring-1d" in json.loads(run("info", fitted, "--json"))["layouts"]

    again = tmp_path / "again"
    assert "radius" in run("relayout", fitted, "--objective", "ring", "--out", again)
    here, there = (
        projector.Projection.load(folder).positions(0, "mlp_post") for folder in (fitted, again)
    )
    assert torch.equal(here, there)
    assert torch.allclose(here.norm(dim=1), torch.ones(len(here)))
    for kind in ("map", "trust"):
        run("plot", fitted, "--kind", kind, "--out", tmp_path / f"{kind}.html")
    assert NO_DISTANCE in (tmp_path / "trust.html").read_text("utf-8")


def test_memory_and_time_are_reckoned_by_the_record(
    ring: Objective, checkpoint: Checkpoint, text_file: Path
) -> None:
    job = prepare(
        str(checkpoint("qwen2")),
        str(text_file),
        FitSettings(layers=(0,), sites=("mlp_post",)),
        Layout(objective="ring"),
        device="cpu",
    )
    TIMED.clear()
    assert estimate(job).seconds > 1e6
    assert [job.widths[0, "mlp_post"]] == TIMED

    def needs(layout: Layout) -> Any:
        return reckon_needs(
            {(0, "mlp_post"): 100},
            correlation="pooled",
            layouts=(layout,),
            device=torch.device("cpu"),
            n_positions=64,
            widest=100,
            in_memory=False,
        )

    ours, usual = needs(Layout(objective="ring")), needs(Layout())
    more = ours.placing[0, "mlp_post"] - usual.placing[0, "mlp_post"]
    assert more == (5000 - 34) * 100**2
    assert usual.may_sample
    assert not ours.may_sample


def test_its_settings_are_checked_and_named_as_any_others(ring: Objective) -> None:
    assert Layout(objective="ring").name == "ring-2d"
    assert parse_layout("ring-1d-absolute") == Layout(objective="ring", dim=1, absolute=True)
    for settings, wrong in (
        ({"dim": 3}, "dim"),
        ({"start": "normal"}, "start"),
        ({"solver": "adamw"}, "solver"),
    ):
        with pytest.raises(SettingError) as caught:
            Layout(objective="ring", **settings)  # type: ignore[arg-type]
        assert caught.value.setting == wrong
    assert f"[b]ring[/b]: {OBJECTIVES['ring'].help}" in objective_help()
    assert "2 for ring" in dim_help()
    assert projector.place(torch.eye(5), objective="ring").shape == (5, 2)


def help_of(*command: str) -> str:
    return " ".join(run(*command, "--help").replace("│", " ").split())


def test_an_objective_may_train_by_a_solver_of_its_own(
    ring: Objective, spring: Objective, checkpoint: Checkpoint, text_file: Path, tmp_path: Path
) -> None:
    for command in ("fit", "layout", "relayout"):
        words = help_of(command)
        assert re.search(r"\bdrill\b[^.]* spring\b", words)
        assert all(re.search(rf"\bturn\b[^.;]* {name}\b", words) for name in ("ring", "spring"))
        assert "adamw or drill" in words
        assert re.search(r"other than 2[^.]* adamw", words)
    assert re.search(r"adamw or drill[^.]* tensorboard", help_of("fit"))

    fitted = tmp_path / "fitted"
    names = "ring-2d,spring-2d-drill"
    said = run(
        "fit", checkpoint("qwen2"), "--corpus", text_file, *ONE_MAP, "--layouts", names,
        "--out", fitted,
    )  # fmt: skip
    assert "radius" in said
    run("layout", fitted, "--objective", "spring", "--solver", "drill", "--lr", 0.05)
    projection = projector.Projection.load(fitted)
    assert list(projection.layouts) == ["ring-2d", "spring-2d-drill", "spring-2d-drill-lr0.05"]
    for name in list(projection.layouts)[1:]:
        norms = projection.positions(0, "mlp_post", name).norm(dim=1)
        assert torch.allclose(norms, torch.full_like(norms, 5.0), atol=1e-4)
    assert projection.layout("spring-2d-drill").settings.method == "drill"


def test_a_log_is_of_an_objective_that_is_trained(spring: Objective, tmp_path: Path) -> None:
    options = ("--log-with", "tensorboard", "--out", str(tmp_path / "out"))
    result = CliRunner().invoke(app, ["fit", *options], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert "--solver adamw or --solver drill" in result.output


@dataclass(frozen=True)
class Stretched(Layout):
    """A layout with one more setting, which one method reads."""

    stretch: float = setting(1.0, help="How far apart.", by_some=True)


class StretchedTrainer(OnlineTrainer):
    """Takes it."""

    def __init__(self, dim: int, *, stretch: float = 1.0, **settings: Any) -> None:
        super().__init__(dim, **settings)
        self.stretch = stretch


def test_a_new_setting_is_refused_read_and_never_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    with refused("stretch", 2.0, "stress"):
        Stretched(stretch=2.0)
    record = OBJECTIVES["stress"]
    adamw = record.methods["adamw"]
    reads = replace(adamw, reads=adamw.reads | {"stretch"})
    changed = replace(record, methods={**record.methods, "adamw": reads})
    monkeypatch.setitem(OBJECTIVES, "stress", changed)
    layout = Stretched(solver="adamw", stretch=2.0, lr=0.5, seed=3)
    trainer = StretchedTrainer.of(layout)
    assert isinstance(trainer, StretchedTrainer)
    assert (trainer.stretch, trainer.lr, trainer.dim) == (2.0, 0.5, 3)
    with pytest.raises(TypeError, match="stretch"):
        OnlineTrainer.of(layout)


def test_nothing_is_known_of_it_afterwards() -> None:
    with pytest.raises(SettingError) as caught:
        Layout(objective="ring")
    assert caught.value.setting == "objective"
