"""A picture as a process tells it, and as a folder holds it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from dashboard.guest import Guest
from dashboard.layer_time.orders import LayerTimeOrder, run_order
from dashboard.layer_time.pictures import IMAGE_FILE, Picture, is_picture, read_picture
from dashboard.prompts import Prompt
from projector.errors import UserError
from projector.progress import Silent
from projector.residual.particles.artifact import JSON_FILE, TENSOR_FILE, write_particles
from projector.residual.particles.report import layer_time
from projector.residual.particles.settings import ParticleSettings
from tests.dashboard.conftest import DECODER


def test_a_process_tells_every_number(guest: Callable[[str], Guest]) -> None:
    subject = guest(DECODER).subject
    record = run_order(subject, LayerTimeOrder((Prompt("kalo mi"),), ParticleSettings()), Silent())
    heard = Picture.of_record(json.loads(json.dumps(record)))
    found = Picture.of(layer_time(subject, "kalo mi"))
    assert heard.report == found.report
    assert heard.tensors.keys() == found.tensors.keys()
    for name, each in found.tensors.items():
        assert heard.tensors[name].dtype == each.dtype
        np.testing.assert_array_equal(heard.tensors[name], each)


def test_a_folder_is_known_by_what_its_report_says(
    guest: Callable[[str], Guest], tmp_path: Path
) -> None:
    found = layer_time(guest(DECODER).subject, "kalo mi", "kalo so")
    write_particles(found, tmp_path)
    assert is_picture(tmp_path)
    assert read_picture(tmp_path).report == found.as_dict()
    assert read_picture(tmp_path).image is None
    (tmp_path / IMAGE_FILE).write_bytes(b"picture")
    assert read_picture(tmp_path).image == b"picture"
    (tmp_path / TENSOR_FILE).write_bytes(b"damaged")
    with pytest.raises(UserError):
        read_picture(tmp_path)
    for content in ('{"kind": "contrast"}', "[]", "{"):
        (tmp_path / JSON_FILE).write_text(content, encoding="utf-8")
        assert not is_picture(tmp_path)
    assert not is_picture(tmp_path / "nowhere")
