"""The site's first address leads to its first page, which lies where the repository has it."""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{title}</title>
<meta http-equiv="refresh" content="0; url={target}">
<a href="{target}">{title}</a>
"""


def _write(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        target = app.builder.get_target_uri(app.config.root_doc)
        text = _PAGE.format(title=app.config.project, target=target)
        (Path(app.outdir) / "index.html").write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("build-finished", _write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
