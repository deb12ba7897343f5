"""Parquet in, Parquet out: one record a row, also for rows that failed.

python examples/parquet_to_parquet.py --input 'reviews/*.parquet' --output moods/mood \\
    --model responses.gpt-5.4-mini
"""

from __future__ import annotations

import argparse

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from beam_batch import CallModel, RenderPrompts, ToDict

SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("ok", pa.bool_()),
        ("result", pa.string()),
        ("error_type", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cost_usd", pa.float64()),
    ]
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for flag in ("--input", "--output", "--model"):
        parser.add_argument(flag, required=True)
    args, beam_args = parser.parse_known_args(argv)
    with beam.Pipeline(options=PipelineOptions(beam_args)) as p:
        prompts = (
            p
            | beam.io.ReadFromParquet(args.input)
            | RenderPrompts("Name the mood of: {{review}}", id_field="id")
        )
        answers = prompts.prompts | CallModel(args.model)
        every = (answers.ok, answers.failed, prompts.failed) | beam.Flatten()
        (
            every
            | ToDict(flat=True)
            | beam.io.WriteToParquet(args.output, SCHEMA, file_name_suffix=".parquet")
        )


if __name__ == "__main__":
    main()
