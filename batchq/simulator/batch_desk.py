"""Where requests about batches and files are answered, whichever format they come in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import formatdate
from typing import Any, Protocol

from batchq.simulator import anthropic_format, openai_format
from batchq.simulator.anthropic_batches import AnthropicBatches
from batchq.simulator.batches import Batch, Batches, Line
from batchq.simulator.chat import Answer, Rejected, Rejection, Response
from batchq.simulator.faults import draw
from batchq.simulator.http import Request
from batchq.simulator.openai_batches import OpenAIBatches
from batchq.simulator.options import SimulatorOptions

PREFIXES = ("/files", "/batches", "/messages/batches")
CREATIONS = ("/batches", "/messages/batches")


class Model(Protocol):
    """What a desk needs of the provider that it belongs to."""

    options: SimulatorOptions

    def check_key(self, form: Any, headers: Any) -> None: ...  # noqa: D102
    def answer_line(self, line: Line) -> Answer | Rejected: ...  # noqa: D102


def is_about_batches(path: str) -> bool:
    """Whether a path, without its version, is answered here."""
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in PREFIXES)


class BatchDesk:
    """Answers requests about batches; `wall` gives seconds since the epoch."""

    def __init__(self, model: Model, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        self._model = model
        self._clock = clock
        self._epoch = wall() - clock()
        self.reset()

    def reset(self) -> None:
        """Forgets all batches and files."""
        self._requests = 0
        self._created = 0
        self._batches = Batches(self._clock, self._model.answer_line)
        self._openai = OpenAIBatches(self._batches, self._stamp)
        self._anthropic = AnthropicBatches(self._batches, self._stamp)

    def handle(self, request: Request) -> Response | None:
        """Answers a request; None closes the connection, whatever was done."""
        path = request.path.removeprefix("/v1").rstrip("/")
        is_anthropic = path.startswith("/messages")
        form = anthropic_format if is_anthropic else openai_format
        api = self._anthropic if is_anthropic else self._openai
        options = self._model.options
        self._requests += 1
        request_id = f"b{self._requests:011d}"
        try:
            self._model.check_key(form, request.headers)
            if self._meets(options.batch_error_rate, "batch error", self._requests):
                raise Rejected(Rejection.SERVER_ERROR, "The server had an error (simulated)")
            response = api.handle(request, options)
        except Rejected as error:
            response = form.write_error(error, request_id)
        else:
            if request.method == "POST" and path in CREATIONS:
                self._created += 1
                if self._meets(options.batch_lost_rate, "lost", self._created):
                    return None
        headers = {
            form.REQUEST_ID_HEADER: f"req_{request_id}",
            "date": formatdate(self._stamp(self._clock()), usegmt=True),
            **response.headers,
        }
        return Response(
            response.status,
            response.body,
            headers,
            content=response.content,
            is_cut=response.is_cut,
        )

    def stats(self) -> list[dict[str, Any]]:
        """What is known of each batch that was ever created, the rejected ones too."""
        return [self._told(batch) for batch in self._batches.all()]

    def _told(self, batch: Batch) -> dict[str, Any]:
        counts = batch.counts()
        created = datetime.fromtimestamp(self._stamp(batch.created_at), UTC)
        return {
            "id": batch.id,
            "api": batch.api,
            "state": batch.state,
            "created_at": created.isoformat(timespec="milliseconds"),
            "metadata": batch.details.get("metadata"),
            "problem": batch.problems[0].message if batch.problems else None,
            "lines": len(batch.lines),
            "waiting": counts.waiting,
            "answered": counts.answered,
            "failed": counts.failed,
            "expired": counts.expired,
            "cancelled": counts.cancelled,
            "downloads": batch.downloads.total(),
        }

    def _meets(self, rate: float, purpose: str, number: int) -> bool:
        return draw(self._model.options.seed, number, 1, purpose) < rate

    def _stamp(self, at: float) -> float:
        """A moment of our clock, on the wall clock that the provider shows."""
        return self._epoch + at + self._model.options.clock_ahead_s
