"""A worker process of the direct runner: Beam's own, which starts sooner."""

from __future__ import annotations

import sys

from beam_batch.process import mark_ours, without_pandas

if __name__ == "__main__":
    mark_ours()
    with without_pandas():
        from apache_beam.runners.worker import sdk_worker_main
    sdk_worker_main.main(sys.argv)
