"""A layer-time as one HTML page that plays without a server and without a network."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from pathlib import Path

from projector.figures.layer_time.data import Report, Tensors, viewer_data
from projector.figures.renderer.script import script, style
from projector.projection.writing import PICTURE_MARK
from projector.storage.places import disk_errors
from projector.storage.replacing import replacing_file

SCRIPT, STYLES = "layer_time.js", ("map.css", "layer_time.css")


def layer_time_script() -> str:
    """The viewer's script: its default export draws :func:`viewer_data` into a component's root."""
    return script(SCRIPT)


def layer_time_style() -> str:
    """The viewer's style sheet, which uses Streamlit's colour variables."""
    return "\n".join(style(name) for name in STYLES)


def layer_time_page(
    report: Report, tensors: Tensors, *, selected: Mapping[str, int] | None = None
) -> str:
    """The page of a saved layer-time, without external resources.

    Args:
        report: the content of ``report.json``.
        tensors: the content of ``particles.safetensors``.
        selected: the initially selected ``prompt`` and ``token``.
    """
    data = viewer_data(report, tensors) | {"selected": dict(selected or {}), "height": None}
    # Within a script only "<" could end it, or begin a comment.
    text = json.dumps(data, allow_nan=False).replace("<", "\\u003c")
    code = layer_time_script().replace("export default function", "const mount = function", 1)
    return _PAGE.format(
        title=html.escape(data["title"]),
        lead=html.escape(data["lead"]),
        mark=PICTURE_MARK,
        style=layer_time_style(),
        script=code,
        data=text,
    )


def write_layer_time_page(
    report: Report,
    tensors: Tensors,
    path: Path,
    *,
    selected: Mapping[str, int] | None = None,
) -> None:
    """Write the page atomically.

    Raises:
        UserError: if the disk is full or the file can't be written. An existing file is unchanged.
    """
    text = layer_time_page(report, tensors, selected=selected)
    with disk_errors(path), replacing_file(path) as new:
        new.write_text(text, encoding="utf-8")


# The policy holds what the text above promises: the browser refuses every request.
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
{mark}
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline';
 style-src 'unsafe-inline'; img-src data: blob:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; --st-font: system-ui; --st-primary-color: #d0434b;
  --st-text-color: light-dark(#31333f, #fafafa); --st-code-font: ui-monospace;
  --st-background-color: light-dark(#ffffff, #121417);
  --st-secondary-background-color: light-dark(#f0f2f6, #23262c); }}
body {{ margin: 14px 20px 24px; font-family: system-ui, sans-serif; color: var(--st-text-color);
  background: var(--st-background-color); }}
h1 {{ font-size: 1.25rem; margin: 0 0 2px; }}
.lead {{ font-size: 0.9rem; opacity: 0.8; margin: 0 0 10px; }}
</style></head><body><h1>{title}</h1><p class="lead">{lead}</p><div id="viewer"></div>
<script type="text/plain" id="css">{style}</script>
<script type="application/json" id="data">{data}</script>
<script type="module">
{script}
const root = document.getElementById("viewer").attachShadow({{ mode: "open" }});
const style = document.createElement("style");
style.textContent = document.getElementById("css").textContent;
const host = document.createElement("div");
host.className = "layer-time";
root.append(style, host);
const nothing = () => undefined;
mount({{ parentElement: root, data: document.getElementById("data").textContent,
  setTriggerValue: nothing, setStateValue: nothing }});
</script>
</body></html>
"""
