"""Sites have one table, and what speaks of them reads it."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from projector.sites import (
    SITES,
    Site,
    check_sites,
    default_sites,
    register,
    short_words,
    site_words,
    sites_help,
)
from projector.terminal.cli import app
from tests.refused import refused

ODD = Site("odd_pre", "odd neurons", "What is odd.", short="odd", is_default=True)


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site that is registered for one test."""
    # Taken out again after the test.
    monkeypatch.setitem(SITES, ODD.name, ODD)
    register(ODD)
    return ODD


def _flat(text: str) -> str:
    """Terminal output without its frames, styles and line breaks."""
    return " ".join(re.sub(r"\x1b\[[0-9;]*m|[│╭╮╰╯─]", " ", text).split())


def test_what_is_read_where_none_is_named() -> None:
    assert default_sites() == ("mlp_post", "mlp_out", "attn_out")
    assert sites_help().startswith(
        "Comma-separated: mlp_post, mlp_out, attn_out, attn_z, resid_pre"
    )


def test_every_site_has_words_and_a_sentence() -> None:
    for name, site in SITES.items():
        assert site.name == name
        assert site.words
        assert site.help.endswith(".")
        assert site.beside is None or site.beside in SITES
    assert len({site.words for site in SITES.values()}) == len(SITES)


def test_a_site_without_a_record_goes_by_its_name() -> None:
    assert site_words("else") == short_words("else") == "else"
    assert short_words("mlp_post") == ""
    assert short_words("resid_pre") == "stream before"


def test_an_unknown_site_is_refused_by_its_name() -> None:
    with refused("sites", "mlp_pre", "mlp_post"):
        check_sites(("mlp_post", "mlp_pre"))


def test_one_record_serves_help_defaults_and_errors(odd: Site) -> None:
    assert odd.name in default_sites()
    assert (site_words(odd.name), short_words(odd.name)) == ("odd neurons", "odd")
    check_sites((odd.name,))
    with refused("sites", "even_pre", "odd_pre"):
        check_sites(("even_pre",))


def test_one_record_serves_the_help_of_the_command(odd: Site) -> None:
    result = CliRunner().invoke(app, ["fit", "--help"], terminal_width=200)
    assert result.exit_code == 0
    assert "odd_pre. By default mlp_post, mlp_out, attn_out, odd_pre." in _flat(result.output)
