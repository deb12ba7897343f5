"""Lines of text in, JSONL out, in folders of their own for each kind of failure.

python examples/text_to_jsonl.py --input 'notes/*.txt' --output summaries \\
    --model responses.gpt-5.4-mini
"""

from __future__ import annotations

import argparse

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from beam_batch import CallModel, RenderPrompts, WriteEnvelopes


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    for flag in ("--input", "--output", "--model"):
        parser.add_argument(flag, required=True)
    args, beam_args = parser.parse_known_args(argv)
    with beam.Pipeline(options=PipelineOptions(beam_args)) as p:
        prompts = (
            p
            | beam.io.ReadFromText(args.input)
            | beam.Map(lambda line: {"line": line})
            | RenderPrompts("Say in five words: {{line}}", include_input=True)
        )
        answers = prompts.prompts | CallModel(args.model, include_input=True)
        answers.ok | "WriteOk" >> WriteEnvelopes(f"{args.output}/ok")
        failed = (answers.failed, prompts.failed) | beam.Flatten()
        failed | "WriteFailed" >> WriteEnvelopes(f"{args.output}/failed", partition_by="error.type")


if __name__ == "__main__":
    main()
