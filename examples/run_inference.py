"""Beam's RunInference, with a handler for every provider that beam-batch knows.

python examples/run_inference.py --input reviews.jsonl --output moods --model groq.llama-3.3-70b
"""

from __future__ import annotations

import argparse
import json

import apache_beam as beam
from apache_beam.ml.inference.base import PredictionResult, RunInference
from apache_beam.options.pipeline_options import PipelineOptions

from beam_batch import CallSpec, OpenAICompatibleModelHandler, WriteEnvelopes


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for flag in ("--input", "--output", "--model"):
        parser.add_argument(flag, required=True)
    args, beam_args = parser.parse_known_args(argv)
    handler = OpenAICompatibleModelHandler(
        args.model, template="Name the mood of: {{review}}", call=CallSpec(parallel=16)
    )
    with beam.Pipeline(options=PipelineOptions(beam_args)) as p:
        (
            p
            | beam.io.ReadFromText(args.input)
            | beam.Map(json.loads)
            | RunInference(handler)
            | beam.Map(_record)
            | WriteEnvelopes(args.output)
        )


def _record(answered: PredictionResult) -> dict[str, object]:
    found = answered.inference
    return {**answered.example, "ok": found["ok"], "mood": found["result"], "error": found["error"]}


if __name__ == "__main__":
    main()
