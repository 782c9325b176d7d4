"""Tables whose numbers have a minus and are sorted as numbers."""

from __future__ import annotations

import numpy as np

from dashboard.drawing.tables import typeset


def test_numbers_have_a_minus_and_stay_numbers() -> None:
    found = typeset({"name": ["a-b", "c"], "rho": [-0.5, None], "n": [-3, 4]}, {"rho": ".3f"})
    page = found.to_html()
    assert "−0.500" in page
    assert "–" in page
    # What is text stays as it is.
    assert "a-b" in page
    assert found.data["rho"].dtype == np.float64


def test_a_column_of_nothing_is_shown() -> None:
    assert "–" in typeset({"rho": [None, None]}, {"rho": ".3f"}).to_html()
