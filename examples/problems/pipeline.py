"""The workflow of the versioning guide, from Python: run, redo two items, go on with the result.

python pipeline.py [simulator|deepseek]
"""

from __future__ import annotations

import argparse
import sys

from batchq import BatchqError, Run, Step, run_pipeline

TEMPLATES = "inputs/modules/module4/problem_templates.json"
LATEST = "outputs/problem_generator_module_4/latest/collated/01_interactions.json"
PROVIDERS = {
    "simulator": {"kind": "simulator", "model": "simulated-small"},
    "deepseek": {
        "kind": "openai",
        "base_url": "https://api.deepseek.com",
        "model": "deepseek-chat",
        "api_key_env": "DEEPSEEK_API_KEY",
    },
}


def generate(provider: str, **options: object) -> Run:
    """Writes a problem for each template, as a new version of `problem_generator`."""
    return run_pipeline(
        steps=[
            Step(
                prompt_name="generate_interaction",
                input_file=TEMPLATES,
                batch_mode=True,
                batch_id_field="template_id",
                batch_output_id_field="interaction_id",
                output_schema="schemas/interaction.json",
                output_file="interactions.json",
            )
        ],
        pipeline_name="problem_generator",
        module_number=4,
        providers={provider: PROVIDERS[provider]},
        verbose=True,
        **options,
    )


def process(provider: str) -> Run:
    """Brings the newest problems into the form of the workbook."""
    return run_pipeline(
        steps=[
            Step(
                prompt_name="format_interaction",
                input_file=LATEST,
                batch_mode=True,
                batch_id_field="interaction_id",
                output_schema="schemas/formatted.json",
                output_file="processed.json",
            )
        ],
        pipeline_name="interaction_processor",
        module_number=4,
        providers={provider: PROVIDERS[provider]},
        verbose=True,
    )


def main() -> int:
    """Runs the guide's first three workflow examples in a row."""
    parser = argparse.ArgumentParser(description="run, redo two items, go on with the result")
    parser.add_argument("provider", nargs="?", default="simulator", choices=[*PROVIDERS])
    provider = parser.parse_args().provider
    try:
        generate(provider, pipeline_status="alpha", notes="First run with new template structure")
        generate(
            provider,
            rerun_items=["4002", "4007"],
            pipeline_status="beta",
            notes="Fixed prompt issues for templates 4002 and 4007",
        )
        return process(provider).exit_code or 0
    except BatchqError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
