"""What a run would cost: all prompts rendered and counted, and a few rows answered if asked to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from beam_batch.calling.pricing import make_pricer
from beam_batch.checks import check_images, check_key
from beam_batch.estimate.counting import count_rows
from beam_batch.estimate.figures import Facts, figures
from beam_batch.estimate.probe import Probed, probe
from beam_batch.estimate.tokens import count_fixed, make_counter
from beam_batch.inputs.plan import plan_rows
from beam_batch.options import EstimateSpec
from beam_batch.providers import resolve_model
from beam_batch.reuse.making import deduplicates


def estimate(spec: EstimateSpec) -> dict[str, Any]:
    """Return the figures of a run without running it; only a probe sends something.

    Raises:
        OptionsError: a setting cannot work.
        RunStopped: the probe could not be finished.
    """
    model = resolve_model(spec.model, os.environ)
    check_images(spec.prompt)
    if spec.probe is not None:
        check_key(model, os.environ)
    counter = make_counter(model)
    fixed = count_fixed(counter, model, spec.prompt, spec.schema)
    with tempfile.TemporaryDirectory(prefix="beam-batch-") as name:
        folder = Path(name)
        plan = plan_rows(spec.source, folder)
        counted = count_rows(
            spec,
            plan,
            lambda content: fixed.same + counter.of(content),
            deduplicates(spec.reuse, model),
        )
        probed = probe(spec, counted.sample, folder) if counted.sample else Probed([], {})
    pricer = make_pricer(model, spec.price)
    return figures(Facts(spec, model, pricer, counter, fixed, counted, probed), plan.selected_rows)
