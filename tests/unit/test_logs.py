from __future__ import annotations

import json
import logging
import threading
from typing import Any

from batchq.host.logs import JsonFormatter, log_context, log_fields


def line(message: str, *args: Any, **more: Any) -> dict[str, Any]:
    record = logging.getLogger("batchq.engine.runner").makeRecord(
        "batchq.engine.runner",
        logging.WARNING,
        __file__,
        1,
        message,
        args,
        more.pop("error", None),
        **more,
    )
    formatted = JsonFormatter().format(record)
    assert "\n" not in formatted
    return dict(json.loads(formatted))


def test_a_line_says_what_it_is_about_and_forgets_it_afterwards() -> None:
    with log_context(run="r1", step="grade"):
        with log_context(item="a\n<b>"):
            log_fields(attempt=2)
            within = line("%s failed", "it", extra={"item": "own"})
        between = line("x")
    after = line("x")

    assert within["run"] == "r1"
    assert (within["item"], within["attempt"]) == ("own", 2)
    assert (within["message"], within["level"]) == ("it failed", "warning")
    assert "item" not in between
    assert "attempt" not in between
    assert "run" not in after


def test_threads_do_not_see_what_others_are_about() -> None:
    seen: list[dict[str, Any]] = []
    with log_context(item="a"):
        thread = threading.Thread(target=lambda: seen.append(line("x")))
        thread.start()
        thread.join()

    assert "item" not in seen[0]


def test_a_traceback_is_one_field_and_odd_values_are_texts() -> None:
    try:
        raise ValueError("broken")
    except ValueError as error:
        told = line("x", error=(ValueError, error, error.__traceback__), extra={"run": {1}})

    assert "ValueError: broken" in told["error"]
    assert told["run"] == "{1}"
