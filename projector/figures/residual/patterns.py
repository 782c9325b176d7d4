"""Attention patterns drawn as text and as a matrix, in HTML that needs no network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence

import torch
from torch import Tensor

from projector.corpus.pieces import readable

# What the styles and the script of all patterns of a page are; once a page.
PATTERN_STYLE = """<style>
.pattern { --i: 33 102 172; margin: .6rem 0 1.2rem; }
.pattern .words { font: .9rem/1.9 ui-monospace, monospace; white-space: pre-wrap;
  max-width: 60rem; }
.pattern .words span { border-radius: .2rem; padding: .1rem 0; cursor: default; }
.pattern .words span.from { outline: 2px solid #b35806; }
.pattern .said { color: #52606d; font-size: .85rem; min-height: 1.3em; margin: .2rem 0; }
.pattern canvas { display: block; margin-top: .4rem; max-width: 100%; }
@media (prefers-color-scheme: dark) { .pattern { --i: 111 177 232; }
  .pattern .said { color: #9aa5b1; } .pattern .words span.from { outline-color: #f1a340; } }
</style>"""
PATTERN_SCRIPT = """<script>
(() => {
  const texts = JSON.parse(document.getElementById("pattern-texts").textContent);
  const count = texts.length;
  const show = (value) => (value / 255).toFixed(2);
  for (const box of document.querySelectorAll(".pattern")) {
    const bytes = Uint8Array.from(atob(box.dataset.shares), (c) => c.charCodeAt(0));
    const words = box.querySelector(".words"), said = box.querySelector(".said");
    const canvas = box.querySelector("canvas");
    const spans = texts.map((text) => {
      const span = document.createElement("span");
      span.textContent = text;
      words.append(span);
      return span;
    });
    const ratio = devicePixelRatio || 1;
    const cell = Math.max(2, Math.min(16, Math.floor(520 / count)));
    const hasNames = cell >= 11;
    const margin = hasNames ? 110 : 14;
    const size = margin + cell * count + 2;
    const draw = (row) => {
      const style = getComputedStyle(box);
      const ink = style.getPropertyValue("--i").trim().split(" ").join(",");
      canvas.width = canvas.height = size * ratio;
      canvas.style.width = size + "px";
      canvas.style.aspectRatio = "1";
      const pen = canvas.getContext("2d");
      pen.scale(ratio, ratio);
      pen.font = "11px ui-monospace, monospace";
      pen.textBaseline = "middle";
      for (let i = 0; i < count; i++) {
        for (let j = 0; j < count; j++) {
          const share = bytes[i * count + j] / 255;
          if (share === 0) continue;
          pen.fillStyle = `rgba(${ink},${share})`;
          pen.fillRect(margin + j * cell, margin + i * cell, cell, cell);
        }
        if (!hasNames) continue;
        pen.fillStyle = style.color;
        const name = texts[i].replace(/\\n/g, "").slice(0, 14);
        pen.textAlign = "right";
        pen.fillText(name, margin - 5, margin + (i + 0.5) * cell);
        pen.save();
        pen.translate(margin + (i + 0.5) * cell, margin - 5);
        pen.rotate(-Math.PI / 2);
        pen.textAlign = "left";
        pen.fillText(name, 0, 0);
        pen.restore();
      }
      pen.strokeStyle = "#7b8794";
      pen.strokeRect(margin - 0.5, margin - 0.5, cell * count + 1, cell * count + 1);
      pen.strokeStyle = "#b35806";
      pen.strokeRect(margin - 0.5, margin + row * cell - 0.5, cell * count + 1, cell + 1);
    };
    const choose = (row, column) => {
      let best = column;
      spans.forEach((span, j) => {
        const share = bytes[row * count + j];
        if (column === undefined && (best === undefined || share > bytes[row * count + best])) {
          best = j;
        }
        span.style.background = `rgb(var(--i) / ${share / 255})`;
        span.classList.toggle("from", j === row);
      });
      said.textContent = `Token ${row + 1} “${texts[row].trim()}” takes ` +
        `${show(bytes[row * count + best])} from token ${best + 1} “${texts[best].trim()}”` +
        (column === undefined ? ", the most of all." : ".");
      draw(row);
    };
    spans.forEach((span, i) => span.addEventListener("mouseenter", () => choose(i)));
    canvas.addEventListener("mousemove", (event) => {
      const at = canvas.getBoundingClientRect(), scale = size / at.width;
      const column = Math.floor(((event.clientX - at.left) * scale - margin) / cell);
      const row = Math.floor(((event.clientY - at.top) * scale - margin) / cell);
      if (row >= 0 && column >= 0 && row < count && column < count) choose(row, column);
    });
    const first = Number(box.dataset.row);
    choose(first);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => choose(first));
  }
})();
</script>"""


def texts_html(texts: Sequence[str]) -> str:
    """The prompt's tokens as data for the script of all patterns on a page."""
    shown = [readable(text, running=True) for text in texts]
    # Within a script only "<" could end it.
    data = json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c")
    return f'<script type="application/json" id="pattern-texts">{data}</script>'


def pattern_html(pattern: Tensor, row: int, what: str) -> str:
    """One head's pattern: the prompt shaded by a token's attention to each token, and the matrix.

    Each share is stored as one byte, so a pattern of 256 tokens takes 87 kB.

    Args:
        pattern: (T, T), rows sum to at most 1.
        row: the row to show initially.
        what: name of the pattern, for screen readers.
    """
    shares = (pattern.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    data = base64.b64encode(shares.contiguous().numpy().tobytes()).decode()
    return (
        f'<div class="pattern" data-row="{row}" data-shares="{data}">'
        f'<div class="words"></div><div class="said"></div>'
        f'<canvas role="img" aria-label="{html.escape(what, quote=True)}"></canvas></div>'
    )
