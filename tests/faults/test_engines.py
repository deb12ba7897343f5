"""The fault suite on engines that need no program of their own."""

from tests.engine_suite import *  # noqa: F403
from tests.engines import DASK, HERE, started

engine = started(HERE | DASK)
