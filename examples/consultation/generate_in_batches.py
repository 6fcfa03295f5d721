"""`python generate_in_batches.py` is `batchq submit generate.yaml`, with its options and files.

Run again after Ctrl-C or a crash it goes on where it was. Either way the files hold what there is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from batchq import BatchqError, Run

TEMP = Path("data/temp")
COMBINED = Path("data/synthetic_responses.json")
LOG = Path("batch_generation.log")


def main() -> int:
    """Reads the options, submits, and writes the files."""
    os.chdir(Path(__file__).parent)
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
    batchq = [sys.executable, "-m", "batchq"]
    code = submitted([*batchq, "submit", "generate.yaml", *params])
    if code != 2:  # a wrong option: nothing was begun
        with LOG.open("w", encoding="utf-8") as log:
            subprocess.run([*batchq, "logs", "responses"], stdout=log, check=False)
        write_files(rows(), int(options.batch_size))
    return code


def submitted(command: list[str]) -> int:
    """Runs a command to its end; a Ctrl-C is for it to heed."""
    with subprocess.Popen(command) as process:
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                return process.wait()


def rows() -> list[dict[str, Any]]:
    """All responses that there are, also of a run that was stopped."""
    try:
        return Run.load("responses").collated()
    except BatchqError:  # it has not come to its end, and may go on from a version before it
        found: dict[int, dict[str, Any]] = {}
        for version in sorted(Path("outputs/responses").glob("v*"), key=lambda v: int(v.name[1:])):
            for path in version.glob("items/*/01_output.json"):
                row = json.loads(path.read_bytes())
                found[row["response_id"]] = row
        return [found[number] for number in sorted(found)]


def write_files(responses: list[dict[str, Any]], size: int) -> None:
    """Writes a file for each batch, and one for all without duplicates."""
    TEMP.mkdir(parents=True, exist_ok=True)
    for old in TEMP.glob("batch_*.json"):
        old.unlink()  # of a run with other batches
    batches: dict[int, list[dict[str, Any]]] = {}
    for row in responses:
        batches.setdefault((row["response_id"] - 1) // size + 1, []).append(row)
    for number, batch in batches.items():
        write(TEMP / f"batch_{number:03d}.json", batch)
    unique: dict[str, dict[str, Any]] = {}
    for row in responses:
        unique.setdefault(row["text"], row)
    write(COMBINED, [*unique.values()])
    print(f"{COMBINED}: {len(unique)} responses in {len(batches)} batches", file=sys.stderr)


def write(path: Path, content: Any) -> None:
    """Replaces a file as a whole."""
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", "utf-8")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
