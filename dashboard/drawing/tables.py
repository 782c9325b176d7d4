"""Tables whose numbers have a minus sign instead of a hyphen, as everywhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from dashboard.drawing.text import number


def typeset(columns: Mapping[str, Sequence[Any]], forms: Mapping[str, str]) -> Styler:
    """A table for :func:`streamlit.dataframe`, which sorts its columns as numbers.

    Args:
        columns: values of each column; None or NaN for missing values.
        forms: number formats of some columns, such as ``.3f``; don't give Streamlit a format for
            these columns.
    """
    frame = pd.DataFrame(columns)
    return frame.style.format(
        {name: lambda value, form=form: number(value, form) for name, form in forms.items()},
        na_rep="–",
    )
