"""Elements that leave a bundle at its end have no window of their own: they get the global one."""

from __future__ import annotations

from typing import Any

from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue


def in_global_window(element: Any) -> Any:
    """Put an element, tagged or not, into the global window."""
    if isinstance(element, TaggedOutput):
        return TaggedOutput(element.tag, in_global_window(element.value))
    return WindowedValue(element, GlobalWindow().max_timestamp(), [GlobalWindow()])
