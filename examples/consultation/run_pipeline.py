"""Generates responses, finds their themes, varies and compares them.

python run_pipeline.py --count 300 --variation 0.3
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SUMMARY = Path("outputs/themes/latest/items/all/03_files/summary.md")


def run() -> int:
    """Submits both manifests and prints the summary; returns the exit code of the first failure."""
    parser = argparse.ArgumentParser(description="the whole pipeline of the consultation")
    parser.add_argument("--count", default="300", help="responses (300)")
    parser.add_argument("--variation", default="0.3", help="share that is varied, 0 to 1 (0.3)")
    parser.add_argument("--wait-time", default="0", help="seconds between batches (0)")
    parser.add_argument("--provider", default="simulator", help="simulator or deepseek")
    options = parser.parse_args()
    provider = ("-p", f"provider={options.provider}")
    generate = ("generate.yaml", "-p", f"total={options.count}", "-p", f"wait={options.wait_time}")
    themes = ("themes.yaml", "-p", f"variation={options.variation}")
    for command in (
        ("validate", *themes, *provider),  # a wrong option is to be known before the first call
        ("submit", *generate, *provider),
        ("submit", *themes, *provider),
    ):
        done = subprocess.run([sys.executable, "-m", "batchq", *command], check=False)
        if done.returncode:
            return done.returncode
    print(SUMMARY.read_text())
    return 0


if __name__ == "__main__":
    sys.exit(run())
