"""Headers that are read by hand say what the format's own library says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from projector.storage.headers import DamagedFile, read_header
from projector.storage.tensors import write_tensors

TENSORS = {
    "a": torch.zeros(3, 2),
    "b": torch.zeros(5, dtype=torch.float16),
    "c": torch.zeros(2, 0, dtype=torch.int64),
    "d": torch.tensor(1, dtype=torch.uint8),
}
METADATA = {"projection": "0" * 64}


@pytest.mark.parametrize("ours", [True, False])
def test_a_header_is_read_as_the_library_reads_it(ours: bool, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    (write_tensors(path, TENSORS, METADATA) if ours else save_file(TENSORS, path, METADATA))
    header = read_header(path)
    with safe_open(path, framework="pt") as file:
        assert header.metadata == file.metadata()
        assert set(header.shapes) == set(file.keys())
        for name in file.keys():
            view = file.get_slice(name)
            assert header.shapes[name] == tuple(view.get_shape())
            assert header.kinds[name] == view.get_dtype()


def test_without_metadata_there_are_none(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", TENSORS)
    assert read_header(tmp_path / "x").metadata == {}


def test_what_is_cut_is_seen_wherever_it_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_tensors(path, TENSORS, METADATA)
    whole = path.read_bytes()
    for n in (0, 4, 8, 40, len(whole) - 1):
        path.write_bytes(whole[:n])
        with pytest.raises(DamagedFile):
            read_header(path)
    path.write_bytes(whole + b"x")
    with pytest.raises(DamagedFile, match=f"{len(whole) + 1:,} bytes"):
        read_header(path)


@pytest.mark.parametrize(
    "header",
    [
        b"not json",
        b"[]",
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}',
        b'{"a":3}',
        b'{"__metadata__":[],"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"x":1},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
    ],
)
def test_a_header_that_makes_no_sense_is_refused(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    with pytest.raises(DamagedFile):
        read_header(path)
    with pytest.raises(FileNotFoundError):
        read_header(tmp_path / "nowhere")


def test_null_metadata_are_none_as_the_library_has_it(tmp_path: Path) -> None:
    header = b'{"__metadata__":null,"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    path = tmp_path / "x"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 4)
    assert read_header(path).metadata == {}
    with safe_open(path, framework="pt") as file:
        assert not file.metadata()
