"""Generates responses, finds their themes, varies and compares them.

python run_pipeline.py --count 300 --variation 0.3
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

LATEST = Path("outputs/themes/latest")
FILES = {  # what the scripts wrote where
    "collated/01_theme_mapping_1.json": "data/theme_mapping_1.json",
    "collated/02_theme_mapping_2.json": "data/theme_mapping_2.json",
    "collated/03_comparison_results.json": "data/comparison_results.json",
    "items/all/03_files/summary.md": "summary.md",
}


def share(text: str) -> float:
    """Reads a share, so that a wrong one is known before the first call."""
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is out of bounds (at least 0 and at most 1)")
    return float(text)


def main() -> int:
    """Submits both manifests and prints the summary; returns the exit code of the first failure."""
    os.chdir(Path(__file__).parent)
    parser = argparse.ArgumentParser(description="the whole pipeline of the consultation")
    parser.add_argument("--count", default="300", help="responses (300)")
    parser.add_argument("--variation", type=share, default=0.3, help="share that varies (0.3)")
    parser.add_argument("--wait-time", default="0", help="seconds between batches (0)")
    parser.add_argument("--provider", default="simulator", help="simulator or deepseek")
    options = parser.parse_args()
    provider = ("-p", f"provider={options.provider}")
    wait = options.wait_time
    responses = ["--total", options.count, "--wait-time", wait, "--provider", options.provider]
    themes = ("themes.yaml", "-p", f"variation={options.variation}")
    for command in (
        ["generate_in_batches.py", *responses],
        ["-m", "batchq", "submit", *themes, *provider],
    ):
        done = subprocess.run([sys.executable, *command], check=False)
        if done.returncode:
            return done.returncode
    Path("data").mkdir(exist_ok=True)
    for source, target in FILES.items():
        shutil.copyfile(LATEST / source, target)
    print(Path("summary.md").read_text(encoding="utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
