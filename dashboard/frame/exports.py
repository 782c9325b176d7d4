"""Downloads: tables as CSV and Parquet, views and figures as offline pages."""

from __future__ import annotations

import io
from collections.abc import Sequence

import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import streamlit as st
import torch

from projector.projection.projection import Projection
from pruning.poles.poles import Poles


def neuron_table(
    projection: Projection, layer: int, site: str, layout: str | None, poles: Poles | None
) -> pa.Table:
    """A table with a row per neuron: position, pole, strength, mean and variance.

    Unknown values are null; a neuron in no pole has pole −1.

    Args:
        layout: the layout of the positions; None for the first.
    """
    positions = projection.positions(layer, site, layout)
    columns: dict[str, pa.Array] = {
        "layer": pa.array([layer] * len(positions), pa.int32()),
        "site": pa.array([site] * len(positions)),
        "neuron": pa.array(range(len(positions)), pa.int32()),
    }
    for axis in range(positions.shape[1]):
        columns[f"position_{axis + 1}"] = _floats(positions[:, axis])
    if poles is not None:
        columns["pole"] = pa.array(poles.labels.numpy(), pa.int32())
        columns["strength"] = _floats(poles.strengths)
    if projection.has_statistics_of(layer, site):
        columns["mean"] = _floats(projection.mean(layer, site))
        columns["variance"] = _floats(projection.covariance(layer, site).diagonal())
    return pa.table(columns)


def with_labels(
    table: pa.Table, labels: Sequence[str], pole_labels: Sequence[str] = ()
) -> pa.Table:
    """The table of a map's neurons with labels of neurons and poles; null for unknown.

    Args:
        labels: label of each neuron, "" for unknown; see :func:`dashboard.state.naming.labels_at`.
        pole_labels: label of each pole, "" for unknown.
    """
    if len(table) != len(labels) or not len(labels):
        return table
    table = table.append_column("label", pa.array([each or None for each in labels], pa.string()))
    if not pole_labels or "pole" not in table.column_names:
        return table
    poles = table.column("pole").to_pylist()
    called = [pole_labels[k] or None if k is not None and k >= 0 else None for k in poles]
    return table.append_column("pole_label", pa.array(called, pa.string()))


def _floats(values: torch.Tensor) -> pa.Array:
    return pa.array(values.float().numpy(), pa.float32(), from_pandas=True)


def csv_of(table: pa.Table) -> bytes:
    """The table as CSV."""
    out = io.BytesIO()
    pyarrow.csv.write_csv(table, out)
    return out.getvalue()


def parquet_of(table: pa.Table) -> bytes:
    """The table as Parquet."""
    out = io.BytesIO()
    pyarrow.parquet.write_table(table, out)
    return out.getvalue()


def offer_figure(figure: go.Figure, stem: str) -> None:
    """A button that saves a figure as a page, which is made after a click."""
    st.download_button(
        "HTML",
        lambda: html_of(figure),
        f"{stem}.html",
        "text/html",
        key=f"html {stem}",
        icon=":material/download:",
        on_click="ignore",
        help="Saves this figure as one page that needs no server; its menu saves a PNG.",
    )


def html_of(figure: go.Figure) -> str:
    """A figure as one offline page, whose menu saves a PNG."""
    return str(figure.to_html(include_plotlyjs=True, full_html=True))
