"""The fault suite on Prism: with its worker in the driver, and with two worker pools."""

import pytest

from tests.engine_suite import *  # noqa: F403
from tests.engines import NO_PRISM, PORTABLE, PRISM, started

pytestmark = pytest.mark.skipif(not PRISM, reason=NO_PRISM)
engine = started(PORTABLE)
