"""What the app is started with, and that nothing above its roots is ever found or read."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.roots import find_folders
from dashboard.state.settings import (
    USUAL_ROOT,
    Settings,
    parse_settings,
)
from projector.projection.overview import FACTS_FILE
from tests.refused import refused_naming


def hold(folder: Path, file: str = FACTS_FILE) -> Path:
    """A folder that holds a file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("{}", encoding="utf-8")
    return folder


def test_without_arguments_the_usual_folder_is_opened() -> None:
    settings = parse_settings([])
    assert settings == Settings((USUAL_ROOT.resolve(),))
    assert settings.roots[0].is_absolute()


def test_a_projection_opens_the_folder_it_lies_in(tmp_path: Path) -> None:
    folder = hold(tmp_path / "runs" / "mine")
    settings = parse_settings(["--projection", str(folder), "--model", "some/model"])
    assert settings == Settings((tmp_path / "runs",), "mine", "some/model")
    assert find_folders(settings.roots, FACTS_FILE)[str(settings.projection)] == folder


def test_a_projection_that_is_not_there_opens_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not the folder of a root that is called the same."""
    monkeypatch.chdir(tmp_path)
    hold(tmp_path / "runs" / "nowhere")
    for given in ("nowhere", "/nowhere", "/no/where"):
        settings = parse_settings(["--projection", given])
        assert settings == Settings((tmp_path / "runs",), str(Path(given).resolve()))
        assert settings.projection not in find_folders(settings.roots, FACTS_FILE)
    settings = parse_settings(["--root", str(tmp_path), "--projection", "nowhere"])
    assert settings.roots == (tmp_path,)


def test_a_projection_below_a_root_goes_by_its_path_there(tmp_path: Path) -> None:
    folder = hold(tmp_path / "runs" / "deep" / "mine")
    settings = parse_settings(
        ["--root", str(tmp_path / "runs"), "--projection", str(folder), "--device", "cpu"]
    )
    assert settings == Settings((tmp_path / "runs",), "deep/mine", device="cpu")


def test_the_projection_that_is_asked_for_is_the_one_that_is_named(tmp_path: Path) -> None:
    """Whatever other folders are called: roots of one name hold projections of one name."""
    folders = [hold(tmp_path / part / "runs" / "mine") for part in "abc"]
    roots = [argument for part in "abc" for argument in ("--root", str(tmp_path / part / "runs"))]
    names = set()
    for folder in folders:
        settings = parse_settings([*roots, "--projection", str(folder)])
        found = find_folders(settings.roots, FACTS_FILE)
        assert found[str(settings.projection)] == folder
        names.add(settings.projection)
        assert len(found) == 3
    assert len(names) == 3


def test_a_root_may_be_a_projection_itself(tmp_path: Path) -> None:
    folder = hold(tmp_path / "mine")
    settings = parse_settings(["--root", str(folder), "--projection", str(folder)])
    assert find_folders(settings.roots, FACTS_FILE) == {str(settings.projection): folder}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--projection", __file__], f"--projection '{__file__}'"),
        (["--root", "nowhere"], "--root 'nowhere'"),
        (["--colour", "red"], "--colour red"),
        (["--model"], "--model"),
    ],
)
def test_a_mistake_is_said_in_one_line(arguments: list[str], names: str) -> None:
    with refused_naming(names):
        parse_settings(arguments)


def test_a_file_is_no_projection(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with refused_naming(f"--projection '{tmp_path / 'file'}'"):
        parse_settings(["--projection", str(tmp_path / "file")])


def test_folders_are_found_below_the_roots(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    expected = {"b": hold(root / "b"), "a/x": hold(root / "a" / "x")}
    hold(root / "other", "config.json")
    hold(root / ".hidden" / "x")
    hold(tmp_path / "beside")
    deep = root.joinpath(*"123456789")
    hold(deep)
    assert find_folders((root,), FACTS_FILE) == expected
    assert find_folders((root,), "config.json") == {"other": root / "other"}
    assert find_folders((tmp_path / "nowhere",), FACTS_FILE) == {}


def test_links_do_not_lead_out_of_a_root(tmp_path: Path) -> None:
    root, outside = tmp_path / "runs", hold(tmp_path / "secret")
    own = hold(root / "own")
    (root / "folder").symlink_to(outside)
    (root / "up").symlink_to("..")
    (root / "loop").symlink_to(".")
    (root / "file").mkdir()
    (root / "file" / FACTS_FILE).symlink_to(outside / FACTS_FILE)
    (root / "nothing").symlink_to(tmp_path / "nowhere")
    assert find_folders((root,), FACTS_FILE) == {"own": own}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two roots with a text each, and a text beside them."""
    roots = (tmp_path / "runs", tmp_path / "texts")
    for folder in (*roots, tmp_path / "runs-secret"):
        folder.mkdir()
        (folder / f"{folder.name}.txt").write_text("text", encoding="utf-8")
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    return Settings(roots)


def test_texts_of_pages_lie_below_a_root(settings: Settings, tmp_path: Path) -> None:
    for source in ("stdlib", "stdlib:train", "stdlib:heldout", "hf:name:config:split"):
        assert settings.text_source(source) == source
    assert settings.text_source("runs.txt") == str(tmp_path / "runs" / "runs.txt")
    assert settings.text_source("texts.txt") == str(tmp_path / "texts" / "texts.txt")
    assert settings.text_source("../texts/texts.txt") == str(tmp_path / "texts" / "texts.txt")
    own = tmp_path / "texts" / "texts.txt"
    assert settings.text_source(str(own)) == str(own)


@pytest.mark.parametrize(
    "source",
    [
        "nowhere.txt",
        "../secret.txt",
        "../runs-secret/runs-secret.txt",
        "./../secret.txt",
        "linked.txt",
        "linked/secret.txt",
        "{above}/secret.txt",
        "/etc/passwd",
        "~/.bashrc",
        "x\0y",
        "x" * 5000,
        "stdlib/../../secret.txt",
        # A list of texts is not one.
        "stdlib:heldout,{above}/secret.txt",
        "stdlib,../secret.txt",
        "hf:name,{above}/secret.txt",
        "",
    ],
)
def test_no_page_reads_above_the_roots(source: str, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "runs" / "linked.txt").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "runs" / "linked").symlink_to(tmp_path)
    with refused_naming("runs", "--root") as refused:
        settings.text_source(source.format(above=tmp_path))
    assert len(str(refused.value)) < 400


def test_a_folder_of_texts_that_leads_out_is_not_read(settings: Settings, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "folder"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("text", encoding="utf-8")
    (folder / "b.txt").symlink_to(folder / "inner" / "a.txt")
    assert settings.text_source("folder") == str(folder)
    (folder / "inner" / "c.txt").symlink_to(tmp_path / "secret.txt")
    with refused_naming("'folder'", "--root"):
        settings.text_source("folder")


@pytest.mark.parametrize("name", ["/etc", "../x", "~/x", "./runs", "a/b/c", "-x", ".", ""])
def test_no_file_is_read_as_a_data_set_of_the_hub(name: str, tmp_path: Path) -> None:
    with refused_naming("hf:NAME"):
        Settings((tmp_path,)).text_source(f"hf:{name}:config:split")


def test_a_folder_here_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "root"
    settings = Settings((root,), model="/given")
    assert settings.text_source("hf:data:config") == "hf:data:config"
    assert settings.may_load("owner/model")
    (tmp_path / "data").mkdir()
    (tmp_path / "owner" / "model").mkdir(parents=True)
    with refused_naming("hf:NAME"):
        settings.text_source("hf:data:config")
    assert not settings.may_load("owner/model")
    assert not settings.may_load("/etc")
    assert settings.may_load("/given")
    assert settings.may_load("bundled")
    assert settings.may_load(str(root / "models" / "own"))


def test_a_closed_folder_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "here.json").touch()
    is_file = Path.is_file

    def ask(path: Path) -> bool:
        if path.parent.name == "closed":
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", ask)
    assert list(find_folders((tmp_path,), "here.json")) == ["open"]
