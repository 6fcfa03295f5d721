"""Runs CALLS prompts through bespokelabs-curator: `peer_curator.py URL CALLS FIRST RPM`.

It prints how many got a valid answer. For the interpreter that `make bench-setup` makes.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path


def prepare() -> None:
    """Keeps it from the network: tables of tokens, prices and telemetry would be fetched there."""
    litellm = find_spec("litellm")
    assert litellm is not None
    assert litellm.origin is not None
    tables = Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"
    os.environ.update(
        TIKTOKEN_CACHE_DIR=str(tables),
        CUSTOM_TIKTOKEN_CACHE_DIR=str(tables),
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        HF_HUB_OFFLINE="1",
        OPENAI_API_KEY="none",
        CURATOR_DISABLE_RICH_DISPLAY="1",
    )
    import posthog

    posthog.disabled = True


def main() -> None:
    url, calls, first, rpm = sys.argv[1], *map(int, sys.argv[2:5])
    prepare()
    from bespokelabs import curator

    class Ask(curator.LLM):
        def prompt(self, row):
            return row["text"]

        def parse(self, _row, response):
            return {"text": response}

    model = Ask(
        model_name="gpt-4o-mini",
        backend="openai",
        backend_params={
            "base_url": f"{url}/v1",
            "max_requests_per_minute": rpm,
            "max_tokens_per_minute": 2_000_000_000,
            "require_all_responses": False,
            "request_timeout": 30,
        },
    )
    rows = [{"text": f"Say something about number {first + n}."} for n in range(calls)]
    answers = model(rows, working_dir="work").dataset
    print(json.dumps({"valid": sum(bool(row["text"]) for row in answers)}))


if __name__ == "__main__":
    main()
