"""Rows as BigQuery gives and takes them: dicts with nested and repeated fields.

Where there is a BigQuery, `Create` is `beam.io.ReadFromBigQuery(table=...)`, whose rows are such
dicts, and `WriteEnvelopes` is `beam.io.WriteToBigQuery(table=..., schema=FIELDS)`. As it stands, it
needs none, and writes JSONL that `bq load --source_format=NEWLINE_DELIMITED_JSON` takes.

python examples/bigquery_rows.py --output orders --model responses.gpt-5.4-mini
"""

from __future__ import annotations

import argparse
import datetime
from decimal import Decimal
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_batch import CallModel, RenderPrompts, ToDict, WriteEnvelopes

ORDERS: list[dict[str, Any]] = [
    {
        "order_id": 17,
        "placed": datetime.datetime(2026, 3, 1, 9, 30, tzinfo=datetime.UTC),
        "customer": {"name": "Ada", "country": "UK"},
        "lines": [
            {"item": "lamp", "price": Decimal("19.90")},
            {"item": "bulb", "price": Decimal("2.50")},
        ],
    },
    {"order_id": 18, "placed": None, "customer": {"name": "Bo", "country": None}, "lines": []},
]
FIELDS = (
    "id:STRING,row_number:INTEGER,ok:BOOLEAN,result:STRING,error_type:STRING,error_message:STRING,"
    "model:STRING,attempts:INTEGER,input_tokens:INTEGER,output_tokens:INTEGER,cost_usd:FLOAT,"
    "duration_ms:FLOAT"
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for flag in ("--output", "--model"):
        parser.add_argument(flag, required=True)
    args, beam_args = parser.parse_known_args(argv)
    with beam.Pipeline(options=PipelineOptions(beam_args)) as p:
        prompts = (
            p
            | beam.Create(ORDERS)
            | RenderPrompts("Thank {{customer}} for {{lines}} of {{placed}}", id_field="order_id")
        )
        answers = prompts.prompts | CallModel(args.model)
        every = (answers.ok, answers.failed, prompts.failed) | beam.Flatten()
        every | ToDict(flat=True) | WriteEnvelopes(args.output)


if __name__ == "__main__":
    main()
