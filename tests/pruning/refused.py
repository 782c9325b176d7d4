"""What an error says of itself: tests hold it to the setting and its value, not to its words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from projector.errors import UserError

_ANY: Any = object()


@contextmanager
def refused(setting: str, value: Any = _ANY) -> Iterator[pytest.ExceptionInfo[UserError]]:
    """Expect a UserError about this setting, in one line."""
    with pytest.raises(UserError) as caught:
        yield caught
    assert caught.value.setting == setting, caught.value
    if value is not _ANY:
        # Not a number is unlike itself.
        assert repr(caught.value.value) == repr(value)
    assert "\n" not in str(caught.value)
    assert "--" not in str(caught.value)
