"""`python generate_in_batches.py` is `batchq submit generate.yaml`, with the options of the script.

Run again after Ctrl-C or a crash it goes on where it was.
"""

from __future__ import annotations

import argparse
import sys

from batchq.__main__ import main


def run() -> int:
    """Reads the options and submits."""
    parser = argparse.ArgumentParser(description="generates consultation responses in batches")
    parser.add_argument("--total", default="300", help="responses (300)")
    parser.add_argument("--batch-size", default="10", help="responses in a batch (10)")
    parser.add_argument("--wait-time", default="300", help="seconds between batches (300)")
    parser.add_argument("--provider", default="simulator", help="simulator or deepseek")
    options = parser.parse_args()
    values = {
        "total": options.total,
        "batch_size": options.batch_size,
        "wait": options.wait_time,
        "provider": options.provider,
    }
    params = [word for name, value in values.items() for word in ("-p", f"{name}={value}")]
    sys.argv = ["batchq", "submit", "generate.yaml", *params]
    return main()


if __name__ == "__main__":
    sys.exit(run())
