"""Text sources: which documents come out of what, and what is said of those that can't be read."""

from __future__ import annotations

import hashlib
import json
import sysconfig
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from projector.corpus.documents import Document
from projector.corpus.readers.stdlib import is_held_out, stdlib_modules
from projector.corpus.sources import find_source, read_documents
from projector.errors import UserError
from tests.refused import refused_naming

MESSAGES = [
    {"role": "user", "content": "ka lo?"},
    {"role": "assistant", "content": "mi ten."},
]


def read(source: str | Path) -> list[Document]:
    return list(read_documents(str(source)))


def refusal(source: str | Path) -> str:
    """The one line that reading ``source`` to its end is refused with."""
    with pytest.raises(UserError) as caught:
        read(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_jsonl(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)
    return path


# The standard library


def held_out_by_hand(module_path: str) -> bool:
    """The rule as it is written down, without the program's own code."""
    return int(hashlib.sha256(module_path.encode("utf-8")).hexdigest(), 16) % 20 == 0


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A made-up library of 200 modules, some of them in packages."""
    root = tmp_path / "library"
    for i in range(200):
        path = root / (f"pack{i % 7}/deep/mod{i}.py" if i % 3 == 0 else f"mod{i}.py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# module {i}: é\n", encoding="utf-8")
    return root


def test_stdlib_splits_are_disjoint_and_together_all_modules(library: Path) -> None:
    every = {p.relative_to(library).as_posix(): p.read_text("utf-8") for p in library.rglob("*.py")}
    train, held_out = (list(stdlib_modules(s, root=library)) for s in ("train", "heldout"))
    assert len(train) + len(held_out) == len(every) == 200
    assert dict(train) | dict(held_out) == every
    assert not set(dict(train)) & set(dict(held_out))
    # Enough of both that a rule gone wrong is seen.
    assert 3 <= len(held_out) <= 25


def test_held_out_is_sha256_of_the_posix_path_divisible_by_20(library: Path) -> None:
    expected = sorted(
        path
        for path in (p.relative_to(library).as_posix() for p in library.rglob("*.py"))
        if held_out_by_hand(path)
    )
    assert any("/" in path for path in expected)  # else the posix form would go untested
    assert [name for name, _ in stdlib_modules("heldout", root=library)] == expected
    assert [is_held_out(f"a/b{i}.py") for i in range(500)] == [
        held_out_by_hand(f"a/b{i}.py") for i in range(500)
    ]


def test_stdlib_leaves_out_what_is_no_library_and_what_is_no_text(library: Path) -> None:
    before = dict(stdlib_modules("train", root=library)) | dict(
        stdlib_modules("heldout", root=library)
    )
    added = {
        "site-packages/thing/core.py": b"x = 1\n",
        "dist-packages/thing/core.py": b"x = 1\n",
        "_sysconfigdata__linux_x86_64-linux-gnu.py": b"build = {}\n",
        "latin.py": b"# caf\xe9\n",
        "blank.py": b"  \n\n",
        "notes.txt": b"no module\n",
    }
    # Many more of each kind, so that both splits would have some.
    for i in range(40):
        added[f"site-packages/m{i}.py"] = b"x = 1\n"
        added[f"latin{i}.py"] = b"\xff\xfe\n"
    for name, content in added.items():
        path = library / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    after = dict(stdlib_modules("train", root=library)) | dict(
        stdlib_modules("heldout", root=library)
    )
    assert after == before


def test_a_package_named_like_site_packages_inside_the_library_is_read(library: Path) -> None:
    path = library / "pack1" / "site-packages.py"
    path.write_text("x = 1\n", encoding="utf-8")
    found = [n for s in ("train", "heldout") for n, _ in stdlib_modules(s, root=library)]
    assert "pack1/site-packages.py" in found


def test_stdlib_is_the_running_interpreters_and_train_by_default(
    library: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In place of the real one, which takes seconds to list.
    monkeypatch.setattr(sysconfig, "get_path", {"stdlib": str(library)}.__getitem__)
    for source, split in (
        ("stdlib", "train"),
        ("stdlib:train", "train"),
        ("stdlib:heldout", "heldout"),
    ):
        assert read(source) == [text for _, text in stdlib_modules(split, root=library)]
    assert read("stdlib:train") != read("stdlib:heldout")


def test_an_unknown_stdlib_split_is_refused_at_once() -> None:
    with refused_naming("'test'", "train, heldout"):
        read_documents("stdlib:test")


# Files


def test_txt_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("ka lo\n\nmi ten é\n", encoding="utf-8")
    assert read(path) == ["ka lo\n\nmi ten é\n"]


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfka lo")
    (tmp_path / "b.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "mi"}\n{"text": "ten"}\n')
    assert read(tmp_path) == ["ka lo", "mi", "ten"]


def test_a_blank_txt_is_no_document(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text(" \n\t\n", encoding="utf-8")
    assert read(path) == []


def test_jsonl_is_a_document_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    # U+2028 ends a line to str.splitlines, and is text within a JSON string.
    rows = [
        {"text": "ka\nlo"},
        "mi \u2028 ten",
        {"content": "ra"},
        MESSAGES,
        {"messages": MESSAGES},
    ]
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text(f"{lines[0]}\n\n  \n" + "\n".join(lines[1:]), encoding="utf-8")
    assert read(path) == ["ka\nlo", "mi \u2028 ten", "ra", MESSAGES, MESSAGES]


def test_rows_without_text_are_passed_over(tmp_path: Path) -> None:
    rows = [{"text": "ka"}, {"text": ""}, {"text": "  "}, {"text": None}, {"messages": []}]
    assert read(write_jsonl(tmp_path / "a.jsonl", rows)) == ["ka"]


def test_parquet_is_a_document_a_row(tmp_path: Path) -> None:
    # More rows than are read at a time.
    texts = [f"ka {i}" for i in range(1500)]
    path = write_parquet(tmp_path / "a.parquet", {"id": list(range(1500)), "text": texts})
    assert read(path) == texts


@pytest.mark.parametrize("column", ["messages", "conversations", "conversation"])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_of_messages_are_conversations(tmp_path: Path, suffix: str, column: str) -> None:
    extended = [{**message, "weight": 1} for message in MESSAGES]
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        write_jsonl(path, [{column: extended, "id": 1}])
    else:
        write_parquet(path, {column: [extended], "id": [1]})
    assert read(path) == [MESSAGES]


def test_columns_are_chosen_by_name_in_a_fixed_order(tmp_path: Path) -> None:
    columns = {"other": ["no"], "content": ["second"], "text": ["first"], "messages": [MESSAGES]}
    expected = ["first", "second", MESSAGES]
    for i, found in enumerate(expected):
        rows = [{name: values[0] for name, values in columns.items()}]
        assert read(write_jsonl(tmp_path / f"{i}.jsonl", rows)) == [found]
        assert read(write_parquet(tmp_path / f"{i}.parquet", columns)) == [found]
        columns.pop("text" if i == 0 else "content", None)


def test_an_only_column_is_taken_whatever_its_name(tmp_path: Path) -> None:
    assert read(write_jsonl(tmp_path / "a.jsonl", [{"body": "ka"}])) == ["ka"]
    assert read(write_parquet(tmp_path / "a.parquet", {"body": ["ka", "lo"]})) == ["ka", "lo"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_no_known_column_is_refused_with_the_names_there_are(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"made-up{suffix}"
    if suffix == ".jsonl":
        write_jsonl(path, [{"text": "ka"}, {"title": "a", "body": "b"}])
    else:
        write_parquet(path, {"title": ["a"], "body": ["b"]})
    message = refusal(path)
    for part in (path.name, "text, content, messages", "title, body"):
        assert part in message
    assert ("line 2" in message) == (suffix == ".jsonl")


@pytest.mark.parametrize(
    ("row", "kind"),
    [(5, "int"), ({"text": 1.5}, "float"), ({"messages": [{"role": "user"}]}, "list")],
)
def test_a_row_of_neither_text_nor_messages_is_refused(
    tmp_path: Path, row: object, kind: str
) -> None:
    message = refusal(write_jsonl(tmp_path / "made-up.jsonl", ["ka", row]))
    assert "made-up.jsonl' line 2" in message
    assert f"a {kind}" in message


@pytest.mark.parametrize(
    "row", ['"ka \\ud800"', '{"text": "\\udc00"}', '[{"role": "user", "content": "\\ud83d"}]']
)
def test_half_a_surrogate_pair_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    path = tmp_path / "made-up.jsonl"
    path.write_text(f'{{"text": "\\ud83d\\ude00"}}\n{row}\n', encoding="utf-8")
    message = refusal(path)
    assert "made-up.jsonl' line 2" in message
    assert "\\ud" in message


@pytest.mark.parametrize("name", ["made-up.txt", "made-up.jsonl"])
def test_what_is_not_utf8_is_refused_with_file_and_byte(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    # 2,000 bytes of UTF-8 in 1,000 characters first: the place counts bytes.
    path.write_bytes("é".encode() * 1000 + b"\xe9 ka")
    message = refusal(path)
    assert str(path) in message
    assert "0xe9" in message
    assert "2,000" in message


@pytest.mark.parametrize("line", ['{"text": oops}', '{"text": "ka"', "[" * 100_000, "1" * 5000])
def test_a_line_that_is_not_json_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "made-up.jsonl"
    # Blank lines count too: an editor's line numbers do.
    path.write_text(f'{{"text": "ka"}}\n\n{line}\n{{"text": "lo"}}\n', encoding="utf-8")
    documents = read_documents(str(path))
    assert next(documents) == "ka"
    with refused_naming("made-up.jsonl' line 3", "JSON"):
        next(documents)


def damaged(content: bytes, kind: str) -> bytes:
    if kind == "truncated":
        return content[: len(content) // 2]
    if kind == "not parquet":
        return b"no parquet at all, but long enough"
    if kind == "empty":
        return b""
    # The footer is whole; the pages it points to are not.
    return content[:4] + b"\x9f" * 60 + content[64:]


@pytest.mark.parametrize("kind", ["truncated", "not parquet", "empty", "pages"])
def test_a_damaged_parquet_file_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = write_parquet(tmp_path / "made-up.parquet", {"text": [f"ka {i}" for i in range(200)]})
    assert len(read(path)) == 200
    path.write_bytes(damaged(path.read_bytes(), kind))
    message = refusal(path)
    assert str(path) in message
    assert "parquet" in message


def test_parquet_text_that_is_not_utf8_is_refused_by_name(tmp_path: Path) -> None:
    # Arrow writes what it is given; only reading it as text fails.
    offsets = pa.py_buffer(np.array([0, 3, 6], dtype=np.int32).tobytes())
    column = pa.StringArray.from_buffers(2, offsets, pa.py_buffer(b"abc\xff\xfe\xfd"))
    assert "made-up.parquet" in refusal(
        write_parquet(tmp_path / "made-up.parquet", {"text": column})
    )


# Folders


def test_a_folder_is_read_in_sorted_order_with_all_below_it(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "b.jsonl", [{"text": "2"}, {"text": "3"}])
    write_parquet(tmp_path / "c" / "d" / "x.parquet", {"text": ["4", "5"]})
    (tmp_path / "c" / "e.txt").write_text("6", encoding="utf-8")
    (tmp_path / "z.txt").write_text("7", encoding="utf-8")
    (tmp_path / "a.txt").write_text("1", encoding="utf-8")
    (tmp_path / "README.md").write_text("no corpus", encoding="utf-8")
    (tmp_path / "folder.txt").mkdir()
    assert read(tmp_path) == ["1", "2", "3", "4", "5", "6", "7"]


def test_a_folder_without_corpus_files_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no corpus", encoding="utf-8")
    with refused_naming(tmp_path, ".txt, .jsonl, .parquet"):
        read_documents(str(tmp_path))


def test_a_fault_in_a_folder_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("ka", encoding="utf-8")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    assert "b.txt" in refusal(tmp_path)


def test_an_unknown_suffix_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "made-up.csv"
    path.write_text("ka", encoding="utf-8")
    with refused_naming("made-up.csv'", ".txt, .jsonl, .parquet"):
        read_documents(str(path))


@pytest.mark.parametrize("source", ["hf:", "hf::config", "hf:a:b:c:d:e"])
def test_a_malformed_name_of_a_data_set_is_refused_at_once(source: str) -> None:
    with refused_naming(f"'{source}'", "hf:NAME["):
        read_documents(source)


@pytest.mark.parametrize("source", ["nowhere/at-all.txt", "stdlib2", ""])
def test_an_unknown_source_is_refused_at_once(source: str) -> None:
    with refused_naming(f"'{source}'", "stdlib", "hf:NAME"):
        read_documents(source)


# Datasets of the hub: the same reader, pointed at a local folder


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dataset")
    write_jsonl(folder / "train.jsonl", [{"text": f"ka {i}", "title": f"lo {i}"} for i in range(4)])
    write_jsonl(folder / "test.jsonl", [{"text": "mi", "title": "ten"}])
    return folder


def test_hf_reads_name_split_and_column(dataset: Path) -> None:
    assert read(f"hf:{dataset}") == ["ka 0", "ka 1", "ka 2", "ka 3"]
    assert read(f"hf:{dataset}::test") == ["mi"]
    assert read(f"hf:{dataset}:::title") == ["lo 0", "lo 1", "lo 2", "lo 3"]
    assert read(f"hf:{dataset}:default:test:title") == ["ten"]


def test_hf_is_streamed(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: dict[str, Any] = {}

    def load_dataset(*args: Any, **options: Any) -> Any:
        asked.update(options)
        return ({"text": f"ka {i}"} for i in iter(int, 1))  # without end

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert list(islice(read_documents("hf:some/name"), 3)) == ["ka 0"] * 3
    assert asked == {"split": "train", "streaming": True}


def test_hf_conversations(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"messages": MESSAGES}, {"messages": MESSAGES[:1]}])
    assert read(f"hf:{tmp_path}") == [MESSAGES, MESSAGES[:1]]


@pytest.mark.parametrize("rest", ["", ":config", "a:b:c:d:e"])
def test_a_malformed_hf_source_is_refused(rest: str) -> None:
    message = refusal(f"hf:{rest}")
    assert f"'hf:{rest}'" in message
    assert "hf:NAME[:CONFIG][:SPLIT][:COLUMN]" in message


def test_a_missing_hf_column_is_refused_with_the_names_there_are(dataset: Path) -> None:
    message = refusal(f"hf:{dataset}:::body")
    assert "'body'" in message
    assert "text" in message
    assert "title" in message


def test_hf_rows_of_no_known_column_are_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", [{"title": "a", "body": "b"}])
    assert "title, body" in refusal(f"hf:{tmp_path}")


@pytest.mark.parametrize("rest", ["no/such-dataset", "{dataset}::dev", "{dataset}:other-config"])
def test_an_hf_dataset_that_can_not_be_read_is_refused_by_name(dataset: Path, rest: str) -> None:
    source = "hf:" + rest.format(dataset=dataset)
    message = refusal(source)
    assert source in message


def test_an_error_of_any_kind_while_streaming_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's HTTP client has errors of its own, which are neither OSError nor ValueError."""
    import datasets

    class ReadTimeout(Exception):
        pass

    def load_dataset(*args: Any, **options: Any) -> Any:
        yield {"text": "ka"}
        raise ReadTimeout("timed\nout")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    documents = read_documents("hf:some/name")
    assert next(documents) == "ka"
    with refused_naming("'hf:some/name'", "timed out"):
        next(documents)


# What is saved of a source


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("stdlib", "stdlib"),
        ("stdlib:heldout", "stdlib:heldout"),
        ("/home/someone/texts/made-up.txt", "made-up.txt"),
        ("texts/", "texts"),
        ("a:b/made-up.txt", "made-up.txt"),
        ("hf:some/name", "hf:some/name"),
        ("hf:some/name:config:train:text", "hf:some/name:config:train:text"),
        ("hf:/home/someone/texts", "hf:texts"),
        ("hf:/home/someone/texts::test", "hf:texts::test"),
        ("hf:~/texts:::body", "hf:texts:::body"),
    ],
)
def test_a_source_is_named_without_its_place_on_this_machine(source: str, expected: str) -> None:
    assert find_source(source).name == expected


def test_the_folder_one_is_in_has_a_name_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts").mkdir()
    monkeypatch.chdir(tmp_path / "texts")
    assert find_source(".").name == find_source("./").name == "texts"
    assert find_source("hf:.").name == "hf:texts"
