"""The page of reports, plans and sweeps."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from streamlit.testing.v1 import AppTest
from streamlit.util import calc_hash

from dashboard.drawing import palette
from dashboard.drawing.encoding import text_of
from dashboard.jobs import Word
from dashboard.state.loading import forget_folders
from dashboard.views.reports import SHIPPED
from projector.errors import UserError
from projector.projection.projection import Projection
from pruning.methods import registry as methods
from pruning.methods.method import Method
from pruning.methods.plan import PLAN_FILE, LayerPlan, PruningPlan
from pruning.refit import registry as refits
from pruning.refit.record import Refit
from pruning.reuse.comparing import report_of
from pruning.reuse.records import ReuseRow
from pruning.reuse.report import save_reuse
from pruning.sweep.report import PruningReport, Row
from tests.dashboard.conftest import DECODER, Open
from tests.dashboard.pages import (
    SCRIPT,
    click,
    decoded,
    errors,
    maps_of,
)


def write_plan(folder: Path, sha256: str, plan: PruningPlan | None) -> None:
    folder.mkdir()
    values = {"plan": plan and plan.to_dict(), "model": {"sha256": sha256}}
    (folder / PLAN_FILE).write_text(json.dumps(values), encoding="utf-8")


def test_removed_neurons_are_shown_on_the_map(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    sha256 = Projection.load(own / DECODER).facts.model.sha256
    layers = tuple(
        LayerPlan(40, tuple(j for j in range(40) if j not in gone)) for gone in ((1, 2), (0, 7, 39))
    )
    plan = PruningPlan("random", 0.1, 0, "uniform", 1, layers)
    small = PruningPlan("random", 0.1, 0, "uniform", 1, (LayerPlan(3, (1,)),))
    write_plan(own / "a-plan", sha256, plan)
    write_plan(own / "b-small", sha256, small)
    write_plan(own / "c-damaged", sha256, None)
    write_plan(own / "d-of-another-model", "0" * 64, plan)
    at = start(own, "pruning", projection=DECODER, layer=1, site="mlp_post").run()
    assert errors(at) == []
    choice = at.selectbox(key="choose plan")
    assert choice.options == ["a-plan", "b-small", "c-damaged"]
    (found,) = maps_of(at)
    values = decoded(found["panels"][0]["values"], np.uint8, 40)
    gone = values[0]
    assert np.flatnonzero(values == gone).tolist() == [0, 7, 39]
    # Either theme has its own colours.
    assert found["palette"] == text_of(palette.groups())
    assert found["palette_dark"] == text_of(palette.groups(dark=True))
    legend = {index: name for name, index in found["legend"]["items"]}
    assert legend[int(gone)] == "removed"
    for name in ("b-small", "c-damaged"):
        at.selectbox(key="choose plan").select(name).run()
        assert len(errors(at)) == 1
    # Plans are of MLP neurons.
    at = start(own, "pruning", projection=DECODER, layer=1, site="attn_out").run()
    assert errors(at) == []
    assert any("mlp_post" in each.value for each in at.info)


def report(folder: Path, rows: list[dict[str, Any]]) -> None:
    usual: dict[str, Any] = {
        "refit": "none", "seed": 0, "evaluation": "text", "windows": "sample", "bits_per_byte": 1.0,
        "n_tokens": 100, "parameters": 1000, "removed_share": 0.1, "seconds": 1.0,
    }  # fmt: skip
    PruningReport(
        {"n_sequences": 20, "n_seeds": 1, "calibration": {"source": SCRIPT}},
        {"id": SCRIPT, "parameters": 1000},
        [Row(**usual | row) for row in rows],
    ).save(folder)


def test_reports_are_shown_as_far_as_they_go(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    dense = {"method": "dense", "sparsity": 0.0, "perplexity": 9.0}
    random = {"method": "random", "sparsity": 0.25, "perplexity": 12.5}
    report(own / "a-whole", [dense, random])
    report(own / "b-begun", [dense])
    report(own / "c-empty", [])
    at = start(own, "pruning", projection=DECODER).run()
    assert errors(at) == []
    assert at.selectbox(key="choose report").options == ["a-whole", "b-begun", "c-empty", SHIPPED]
    table = at.dataframe[0].value
    assert table["25%"].tolist() == ["12.500"]
    said = " ".join(each.value for each in at.caption)
    assert "1 seed" in said
    assert "1 seeds" not in said
    assert "10.0%" in said
    for name in ("b-begun", "c-empty"):
        at.selectbox(key="choose report").select(name).run()
        assert errors(at) == []
        assert all(each.value.strip(". ") for each in at.caption)
    assert any("no rows" in each.value for each in at.info)


def test_a_report_on_reuse_is_shown_with_its_answer(
    copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER)
    rows = [ReuseRow("dense", 0.0, 0, 0, 8.0, (2.0, 2.1, 2.2), 600, 600, 0, None, 0.0)]
    for method, cost in (("reuse", 0.3), ("removal", 0.1)):
        nll = tuple(x + cost + y for x, y in ((2.0, 0.0), (2.1, 0.01), (2.2, 0.02)))
        rows.append(
            ReuseRow(method, 0.1, 0, int(method == "reuse"), 9.0, nll, 540, 600, 9, 0.1, 1.0)
        )
    facts = {
        "n_sequences": 20,
        "n_seeds": 1,
        "calibration": {"source": SCRIPT},
        "evaluation": {"source": SCRIPT, "windows": 3},
        "pruning_method": "obs",
    }
    model = {"id": SCRIPT, "parameters": 1000}
    save_reuse(report_of(facts, model, rows, "obs"), own / "a-reuse")
    save_reuse(report_of(facts, model, [], "obs"), own / "b-begun")
    at = start(own, "pruning", projection=DECODER).run()
    assert errors(at) == []
    assert at.selectbox(key="choose report").value == "a-reuse"
    assert any("removal at 10\N{NO-BREAK SPACE}%" in each.value for each in at.markdown)
    methods, comparisons = (each.value for each in at.dataframe[:2])
    assert methods["method"].tolist() == ["dense", "reuse", "removal"]
    assert comparisons["nats a token"].tolist() == ["+0.2000"]
    at.selectbox(key="choose report").select("b-begun").run()
    assert errors(at) == []
    assert any("no rows" in each.value for each in at.info)


def test_reports_of_the_model_in_view_come_alone_and_one_ships(
    copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER)
    at = start(own, "pruning", projection=DECODER).run()
    assert errors(at) == []
    # The page is never empty, and says what it shows.
    assert at.selectbox(key="choose report").options == [SHIPPED]
    assert any("bundled" in each.value for each in at.caption)
    assert any("no report" in each.value for each in at.info)
    assert len(at.dataframe[0].value) > 10
    dense = {"method": "dense", "sparsity": 0.0, "perplexity": 9.0}
    report(own / "another", [dense])
    report(own / "mine", [dense])
    # Reports of other commands are neither counted nor offered.
    for name, content in (("time", {"kind": "layer-time"}), ("other", {"format": "x"})):
        (own / name).mkdir()
        (own / name / "report.json").write_text(json.dumps(content), encoding="utf-8")
    values = json.loads((own / "mine" / "report.json").read_text())
    values["model"]["sha256"] = Projection.load(own / DECODER).facts.model.sha256
    (own / "mine" / "report.json").write_text(json.dumps(values))
    forget_folders()
    at = start(own, "pruning", projection=DECODER).run()
    assert errors(at) == []
    assert at.selectbox(key="choose report").options == ["mine"]
    assert "(2)" in at.toggle(key="other reports").label
    at.toggle(key="other reports").set_value(True).run()
    assert at.selectbox(key="choose report").options == ["mine", "another", SHIPPED]
    # A link to another model's report shows it.
    at = start(own, "pruning", projection=DECODER, report="another").run()
    assert at.selectbox(key="choose report").value == "another"


@pytest.mark.parametrize(
    "content",
    ["{", "[]", json.dumps({"format": "transformer-pruning-report"})],
)
def test_a_damaged_report_is_said_and_another_can_be_chosen(
    content: str, copied: Callable[..., Path], start: Open
) -> None:
    own = copied(DECODER)
    (own / "bad").mkdir()
    (own / "bad" / "report.json").write_text(content, encoding="utf-8")
    dense = {"method": "dense", "sparsity": 0.0, "perplexity": 9.0}
    report(own / "good", [dense])
    at = start(own, "pruning", projection=DECODER).run()
    assert len(errors(at)) == 1
    at.selectbox(key="choose report").select("good").run()
    assert errors(at) == []


def test_a_report_that_lacks_facts_is_said(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    report(own / "bad", [{"method": "dense", "sparsity": 0.0, "perplexity": 9.0}])
    values = json.loads((own / "bad" / "report.json").read_text())
    values["settings"], values["model"] = {}, {}
    (own / "bad" / "report.json").write_text(json.dumps(values), encoding="utf-8")
    (error,) = errors(start(own, "pruning", projection=DECODER).run())
    assert "damaged" in error


@pytest.mark.parametrize(
    ("field", "value"), [("sparsity", None), ("perplexity", "9"), ("seed", 1.5)]
)
def test_a_report_s_rows_are_of_the_right_kinds(
    field: str, value: object, start: Open, copied: Callable[..., Path]
) -> None:
    root = copied(DECODER)
    row = {
        **{"method": "flap", "refit": "none", "sparsity": 0.2, "seed": 0, "evaluation": "x"},
        **{"windows": "sample", "perplexity": 9.0, "bits_per_byte": 1.0, "n_tokens": 9},
        **{"parameters": 5, "removed_share": 0.1, "seconds": 1.0},
    }
    (root / "report").mkdir()
    content = {
        "format": "transformer-pruning-report",
        "format_version": 1,
        "rows": [row | {field: value}],
    }
    content |= {"settings": {}, "model": {}}
    (root / "report" / "report.json").write_text(json.dumps(content), encoding="utf-8")
    at = start(root, "pruning", projection=DECODER).run()
    (error,) = errors(at)
    assert "damaged" in error


def fields_of(at: AppTest) -> dict[str, object]:
    """What stands in the fields of a new sweep, by their labels."""
    fields = [*at.multiselect, *at.text_input, *at.number_input]
    return {each.label: each.value for each in fields}


def type_in(at: AppTest, **values: str) -> None:
    for label, value in values.items():
        (field,) = [each for each in at.text_input if each.label == label.replace("_", " ")]
        field.set_value(value)


@pytest.mark.parametrize("name", ["../out", "models", "a b", SCRIPT])
def test_a_sweep_that_can_not_be_is_refused_on_the_page(
    name: str, open_page: Open, root: Path
) -> None:
    at = open_page("pruning")
    type_in(at, Name_of_the_report=name, Calibration_text="seen.txt", Evaluation_text="unseen.txt")
    at.run()
    before = fields_of(at)
    assert before["Name of the report"] == name
    at = click(at, "Start")
    (error,) = errors(at)
    assert name in error
    assert not (root / ".jobs").exists()
    # Nothing is lost by it.
    assert fields_of(at) == before


@pytest.mark.parametrize(
    ("label", "value", "says"),
    [
        ("Shares to remove", "a third", "0.1, 0.3"),
        ("Shares to remove", "", "0.1, 0.3"),
        ("Calibration text", "", "stdlib"),
        ("Evaluation text", "seen.txt", "seen.txt"),
        ("Methods", [], "method"),
        ("Refits", [], "refit"),
    ],
)
def test_what_is_wrong_with_a_field_is_one_line(
    label: str, value: Any, says: str, open_page: Open, root: Path
) -> None:
    at = open_page("pruning")
    type_in(at, Calibration_text="seen.txt", Evaluation_text="unseen.txt")
    (field,) = [each for each in [*at.text_input, *at.multiselect] if each.label == label]
    field.set_value(value)
    at = click(at, "Start")
    (error,) = errors(at)
    assert says in error
    # No option of a command is named, where there are fields.
    assert "--" not in error
    assert fields_of(at)[label] == value
    assert errors(at.run()) == []
    assert not (root / ".jobs").exists()


def test_a_method_and_a_refit_that_are_registered_can_be_compared(
    copied: Callable[..., Path], start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = copied(DECODER, "models", "seen.txt", "unseen.txt")
    begun = psutil.Process()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: begun)
    method = Method("fake-method", "those that a test names", scores=lambda layer: layer.weights)
    refit = Refit("fake-refit", "what a test says")
    methods.register(method)
    refits.register(refit)
    try:
        at = start(own, "pruning", projection=DECODER).run()
        for key, record in (("sweep methods", method), ("sweep refits", refit)):
            field = at.multiselect(key=key)
            assert field.options[-1] == record.name
            assert field.help.endswith(f"- `{record.name}`: {record.help}\n")
            field.set_value([record.name])
        type_in(at, Calibration_text="seen.txt", Evaluation_text="unseen.txt")
        at.run()
        # Two shares, and the dense model.
        assert any(each.value.startswith("3 models") for each in at.caption)
        at = click(at, "Start")
        assert errors(at) == []
        order = json.loads((own / ".jobs" / "sweep-1.json").read_text())["order"]
        assert (order["methods"], order["refits"]) == (["fake-method"], ["fake-refit"])
    finally:
        del methods.METHODS[method.name]
        del refits.REFITS[refit.name]


def test_a_sweep_is_started_and_its_fields_stay(
    copied: Callable[..., Path], start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = copied(DECODER, "models", "seen.txt", "unseen.txt")
    begun = psutil.Process()
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: begun)
    at = start(own, "pruning", projection=DECODER).run()
    assert fields_of(at)["Name of the report"] == "sweep-1"
    type_in(
        at, Calibration_text="seen.txt", Evaluation_text="unseen.txt", Shares_to_remove="20%, 0.5"
    )
    at.multiselect(key="sweep methods").set_value(["random", "flap", "obs"])
    at.number_input(key="sweep seeds").set_value(2)
    at.run()
    # Three methods, two refits, two shares, two seeds, and the dense model.
    assert any(each.value.startswith("25 models") for each in at.caption)
    expected = fields_of(at)
    at = click(at, "Start")
    assert errors(at) == []
    order = json.loads((own / ".jobs" / "sweep-1.json").read_text())["order"]
    assert (order["sparsities"], order["n_seeds"]) == ("20%, 0.5", 2)
    # The next one's name is free.
    assert fields_of(at) == expected | {"Name of the report": "sweep-2"}
    # Another page was looked at meanwhile.
    for page in ("map", "pruning"):
        at._page_hash = calc_hash(page)
        at.run()
    assert errors(at) == []
    assert fields_of(at) == expected | {"Name of the report": "sweep-2"}


def write_job(own: Path, name: str, **values: Any) -> None:
    """A job as an app before this one left it."""
    (own / ".jobs").mkdir(exist_ok=True)
    usual = {"name": name, "pid": 1, "created": 1.0, "n_models": 4}
    (own / ".jobs" / f"{name}.json").write_text(json.dumps(usual | values), encoding="utf-8")


def test_jobs_tell_how_they_do_and_can_be_stopped(copied: Callable[..., Path], start: Open) -> None:
    own = copied(DECODER)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        created = psutil.Process(process.pid).create_time()
        write_job(own, "runs", pid=process.pid, created=created)
        write_job(own, "failed")
        failed = Word("failed", error=UserError(f"no {SCRIPT} here"))
        failed.write(own / ".jobs" / "failed.state")
        write_job(own, "done")
        Word("finished").write(own / ".jobs" / "done.state")
        at = start(own, "pruning", projection=DECODER).run()
        (error,) = errors(at)
        assert error == f"failed: 0 of 4 models; no {SCRIPT} here"
        assert [each.value for each in at.success] == ["done: done, 0 of 4 models"]
        assert [each.key for each in at.button if each.label == "Stop"] == ["stop runs"]
        at.button(key="stop runs").click().run()
        assert process.wait(30) != 0
        at.run()
        # That it was stopped is no error.
        assert len(errors(at)) == 1
        assert "runs: stopped, 0 of 4 models" in [each.value for each in at.info]
        # What was asked for is not known of these.
        assert [each.label for each in at.button if each.label == "Resume"] == []
        for name in ("failed", "done", "runs"):
            at.button(key=f"remove {name}").click().run()
        assert errors(at) == []
        assert [each.label for each in at.button if each.label == "Remove"] == []
        assert list((own / ".jobs").iterdir()) == []
    finally:
        process.kill()
        process.communicate()


def test_a_sweep_that_was_stopped_goes_on(
    copied: Callable[..., Path], start: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = copied(DECODER, "models", "seen.txt", "unseen.txt")
    order = {
        "name": "mine", "projection": DECODER, "model": str(own / "models" / DECODER),
        "methods": ["random"], "refits": ["none"], "sparsities": "0.3", "n_seeds": 1,
        "n_sequences": 64, "calibration": "seen.txt", "evaluation": "unseen.txt",
    }  # fmt: skip
    commands: list[list[str]] = []

    def popen(command: list[str], **_: Any) -> psutil.Process:
        commands.append(command)
        return psutil.Process()

    monkeypatch.setattr(subprocess, "Popen", popen)
    write_job(own, "mine", is_stopping=True, order=order)
    write_job(own, "gone", is_stopping=True, order=order | {"name": "gone", "projection": "gone"})
    at = start(own, "pruning", projection=DECODER).run()
    at.button(key="resume gone").click().run()
    (error,) = errors(at)
    assert "'gone'" in error
    at.button(key="resume mine").click().run()
    assert errors(at) == []
    (command,) = commands
    assert "--resume" in command
    assert command[command.index("--out") + 1] == str(own / "mine")
    assert [each.key for each in at.button if each.label == "Stop"] == ["stop mine"]
