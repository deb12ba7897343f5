"""From a sample to a total, with a 95 % interval."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

ENOUGH_FOR_A_LINE = 8
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776}
"""0.975 quantiles of Student's t that the expansion below does not reach."""


class Interval(NamedTuple):
    """A total, and where it is with a chance of 95 %; None where a single row cannot say."""

    value: float
    low: float | None
    high: float | None


def total_of(xs: Sequence[float], ys: Sequence[float], rows: int, total_x: float) -> Interval:
    """Estimate the sum of y over `rows` rows, of which some were drawn at random.

    x is known of all rows and sums up to `total_x`. A line through the drawn ones says what y does
    with x (the regression estimator); with few of them it goes through 0 (the ratio estimator).
    See Cochran, Sampling Techniques, chapters 6 and 7.
    """
    n = len(xs)
    if n >= ENOUGH_FOR_A_LINE and max(xs) > min(xs):
        slope, intercept = statistics.linear_regression(xs, ys)
        free = n - 2
    else:
        slope, intercept = (sum(ys) / sum(xs) if sum(xs) else 0.0), 0.0
        free = n - 1
    value = max(0.0, rows * intercept + slope * total_x)
    if n >= rows:
        return Interval(value, value, value)
    if free < 1:
        return Interval(value, None, None)
    rest = sum((y - intercept - slope * x) ** 2 for x, y in zip(xs, ys, strict=True))
    margin = t_975(free) * rows * math.sqrt((1 - n / rows) * rest / free / n)
    return Interval(value, max(0.0, value - margin), value + margin)


def t_975(free: int) -> float:
    """Return the 0.975 quantile of Student's t (expansion in Abramowitz and Stegun, 26.7.5).

    >>> round(t_975(18), 2)
    2.1
    """
    if free in _T:
        return _T[free]
    z = statistics.NormalDist().inv_cdf(0.975)
    return (
        z
        + (z**3 + z) / (4 * free)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * free**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * free**3)
    )
