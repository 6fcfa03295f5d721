"""Runs a worker of the embedded stack: `celery -A batchq worker` without the other commands.

Celery's own entry point imports all its commands and those of installed packages, Flower's among
them. That is a third of a worker's start, and two workers start before the first item.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from celery.bin.base import CLIContext
from celery.bin.worker import worker

from batchq.queue.app import make_app
from batchq.settings import load_settings


def main() -> NoReturn:
    """Runs as `python -m batchq.queue.worker OPTION...`, with the options of `celery worker`."""
    app = make_app(load_settings())
    context = CLIContext(app=app, no_color=True, workdir=None, quiet=True)
    worker.main(args=sys.argv[1:], prog_name="batchq worker", obj=context)


if __name__ == "__main__":
    main()
