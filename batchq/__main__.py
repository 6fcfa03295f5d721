"""The border of the command line: errors become a message and an exit code."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from datetime import UTC, datetime
from pathlib import Path

import click

from batchq.errors import BatchqError

INTERRUPTED = 130
BROKEN_PIPE = 141  # as a shell reports a program that SIGPIPE ended
FAULT = 1


def main() -> int:
    """Runs the command line and returns its exit code; never lets a traceback out."""
    from batchq.cli import cli

    try:
        code = cli.main(prog_name="batchq", standalone_mode=False)
        sys.stdout.flush()
    except BatchqError as error:
        click.echo(f"{click.style('error:', fg='red')} {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has what it wanted. Python would complain while it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:  # noqa: BLE001 (the border: the traceback goes to a file)
        return _report_fault(error)
    return code if isinstance(code, int) else 0


def _report_fault(error: Exception) -> int:
    place = _write_traceback(error)
    words = str(error).strip().splitlines() or [""]
    click.echo(
        f"{click.style('error:', fg='red')} this is a fault in batchq, not in what you did: "
        f"{type(error).__name__}: {words[0][:200]}\nThe traceback is in {place}; please report it.",
        err=True,
    )
    return FAULT


def _write_traceback(error: Exception) -> Path:
    name = f"fault-{datetime.now(UTC):%Y%m%d-%H%M%S}-{os.getpid()}.log"
    text = f"batchq {' '.join(sys.argv[1:])}\n{''.join(traceback.format_exception(error))}"
    for folder in (Path(os.environ.get("BATCHQ_HOME", ".batchq")), Path(tempfile.gettempdir())):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError:
            continue
        return (folder / name).absolute()
    return Path("(nowhere: no folder can be written)")


if __name__ == "__main__":
    sys.exit(main())
