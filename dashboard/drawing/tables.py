"""Tables whose numbers are set as everywhere else: with a minus, not a hyphen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from pandas.io.formats.style import Styler

from dashboard.drawing.text import number


def typeset(columns: Mapping[str, Sequence[Any]], forms: Mapping[str, str]) -> Styler:
    """A table for :func:`streamlit.dataframe`, which still sorts its columns as numbers.

    Args:
        columns: values of each column; None or NaN for none.
        forms: how the numbers of some columns are written, such as ``.3f``; their columns take no
            format of Streamlit's.
    """
    frame = pd.DataFrame(columns)
    return frame.style.format(
        {name: lambda value, form=form: number(value, form) for name, form in forms.items()},
        na_rep="–",
    )
