"""One real Flink for all tests of this folder: a start takes longer than they do together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from beam_batch.errors import OptionsError
from beam_batch.runners.flink import check_cluster
from tests.flink.cluster import REASON, Flink

SLOTS = 2


class Started(NamedTuple):
    """A cluster of one TaskManager, and what was said of it before there was one."""

    flink: Flink
    refusal: str


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    if REASON:
        pytest.skip(REASON)
    flink = Flink(tmp_path_factory.mktemp("flink"))
    try:
        flink.wait_for(slots=0)
        with pytest.raises(OptionsError) as refused:
            check_cluster(flink.master)
        flink.add_task_manager(SLOTS)
        flink.wait_for(SLOTS)
        yield Started(flink, str(refused.value))
    finally:
        flink.stop()


@pytest.fixture
def flink(started: Started) -> Flink:
    return started.flink
