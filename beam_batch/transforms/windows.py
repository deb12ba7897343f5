"""Elements that leave a bundle when others have come in: each goes where its own row was."""

from __future__ import annotations

from typing import Any

import apache_beam as beam
from apache_beam.pvalue import TaggedOutput
from apache_beam.transforms.window import GlobalWindow, SlidingWindows
from apache_beam.utils.windowed_value import WindowedValue

from beam_batch.errors import OptionsError

Place = tuple[Any, Any]
"""A timestamp and a window."""
GLOBAL: Place = (GlobalWindow().max_timestamp(), GlobalWindow())


def in_global_window(element: Any) -> Any:
    """Put an element, tagged or not, into the global window."""
    return in_window(element, GLOBAL)


def in_window(element: Any, place: Place) -> Any:
    """Put an element, tagged or not, at a timestamp and into a window."""
    if isinstance(element, TaggedOutput):
        return TaggedOutput(element.tag, in_window(element.value, place))
    stamp, window = place
    return WindowedValue(element, stamp, (window,))


def check_windows(prompts: beam.PCollection) -> None:
    """Refuse windows that overlap: a prompt would be sent, and paid, once for each.

    Raises:
        OptionsError: the input is in sliding windows.
    """
    windows = prompts.windowing.windowfn
    if isinstance(windows, SlidingWindows):
        raise OptionsError(
            f"CallModel after beam.WindowInto(SlidingWindows({windows.size}, {windows.period})) "
            "would send each prompt once for each of its windows. Apply CallModel before it: "
            "outcomes keep the timestamps of their prompts."
        )
