"""The simulated provider: what becomes of each call, without HTTP and with a given clock."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from batchq.simulator.batch_desk import BatchDesk
from batchq.simulator.batches import Line
from batchq.simulator.chat import (
    Answer,
    Call,
    Rejected,
    Rejection,
    Response,
    estimate_tokens,
    json_object,
)
from batchq.simulator.faults import Fault, decide_fault, draw_latency_s
from batchq.simulator.limits import Admission, Limits, LimitState
from batchq.simulator.options import SimulatorOptions
from batchq.simulator.replies import identify, make_answer, spoil
from batchq.simulator.stats import CallLog, Stats, Way

MODEL_WHEN_NONE_LISTED = "simulator"
FAULT_ERRORS: Mapping[Fault, Rejected] = {
    Fault.SERVER_ERROR: Rejected(Rejection.SERVER_ERROR, "The server had an error (simulated)"),
    Fault.OVERLOADED: Rejected(Rejection.OVERLOADED, "Overloaded: try again later (simulated)"),
}


class Format(Protocol):
    """A wire format: a module that reads its requests and writes its responses."""

    REQUEST_ID_HEADER: str

    # One shape for two modules, not a seam that others implement: hence more than five members.
    def key_of(self, headers: Mapping[str, str]) -> str: ...  # noqa: D102
    def read_call(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> Call: ...  # noqa: D102
    def write_answer(self, call: Call, answer: Answer, request_id: str) -> Mapping[str, Any]: ...  # noqa: D102
    def write_error(self, error: Rejected, request_id: str) -> Response: ...  # noqa: D102
    def write_models(self, names: Sequence[str]) -> Mapping[str, Any]: ...  # noqa: D102
    def write_model(self, name: str) -> Mapping[str, Any]: ...  # noqa: D102
    def limit_headers(self, limits: Mapping[str, LimitState]) -> dict[str, str]: ...  # noqa: D102
    def retry_headers(self, retry_after_s: float) -> dict[str, str]: ...  # noqa: D102


class End(Protocol):
    """Tells the provider that a call is over."""

    def __call__(self, *, was_sent: bool) -> None: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Served:
    """What to do with one call: after `delay_s` send `response`, or close without one.

    `end` must be called once, when it is sent or the client is gone, with whether it was sent.
    """

    response: Response | None
    delay_s: float = 0.0
    end: End = field(default=lambda *, was_sent: None)  # noqa: ARG005 (nothing to end)


class SimulatedProvider:
    """Answers calls in either format under limits and faults that may change at any time."""

    def __init__(
        self,
        options: SimulatorOptions,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.options = options
        self.desk = BatchDesk(self, clock, wall)
        self._limits = Limits(options, clock)
        self._stats = Stats()
        self._log = CallLog(clock)
        self._requests = 0

    def configure(self, options: SimulatorOptions) -> None:
        """Changes the options for the calls that come after."""
        self.options = options
        self._limits.configure(options)

    def reset(self) -> None:
        """Forgets all counts, attempts, used limits and batches; keeps the options."""
        self.desk.reset()
        self._stats = Stats()
        self._log.clear()
        self._limits.reset(self.options)

    def stats(self) -> dict[str, Any]:
        """What `GET /stats` answers."""
        in_flight = {
            "in_flight": self._limits.in_flight,
            "peak_in_flight": self._limits.peak_in_flight,
        }
        batches = self.desk.stats()  # first: it answers what is due
        return {**self._stats.as_json(), **in_flight, "batches": batches}

    def paid(self) -> dict[str, Any]:
        """What `GET /paid` answers."""
        self.desk.stats()
        return self._stats.paid()

    def calls(self) -> dict[str, Any]:
        """What `GET /calls` answers."""
        return self._log.as_json()

    def serve(self, form: Format, headers: Mapping[str, str], raw_body: bytes) -> Served:
        """Decides what becomes of one call to a model."""
        request_id = self._next_id()
        identity = {form.REQUEST_ID_HEADER: f"req_{request_id}"}
        try:
            self.check_key(form, headers)
            call = form.read_call(json_object(raw_body), headers)
            self._check_model(call)
            return self._serve_call(form, call, request_id, identity)
        except Rejected as error:
            return self._reject(form, error, request_id, identity)

    def models(self, form: Format, headers: Mapping[str, str], name: str = "") -> Response:
        """Lists the models, or tells of one; without any listed, every name is one."""
        names = self.options.models or (name or MODEL_WHEN_NONE_LISTED,)
        try:
            self.check_key(form, headers)
            if name and name not in names:
                raise Rejected(Rejection.UNKNOWN_MODEL, f"The model {name!r} does not exist")
        except Rejected as error:
            return form.write_error(error, self._next_id())
        return Response(200, form.write_model(name) if name else form.write_models(names))

    def answer_line(self, line: Line) -> Answer | Rejected:
        """What the model makes of a line of a batch; hangs and drops are what calls have."""
        call, prompt, options = line.call, line.prompt, self.options
        if isinstance(call, Rejected):
            return call
        fault = decide_fault(options, prompt, self._stats.attempts(prompt) + 1)
        fault = Fault.NONE if fault in (Fault.HANG, Fault.DROP) else fault
        try:
            self._check_model(call)
            good = make_answer(call, options.seed, prompt)
        except Rejected as error:
            return error
        self._stats.count_line(prompt, fault)
        if fault in FAULT_ERRORS:
            return FAULT_ERRORS[fault]
        answer = spoil(call, good, fault, prompt)
        self._count_answer("batch", prompt, answer, fault)
        return answer

    def _count_answer(self, way: Way, prompt: int, answer: Answer, fault: Fault) -> None:
        read, written = answer.input_tokens, answer.output_tokens
        nusd = charge_nusd(self.options, way, read, written)
        self._stats.count_answer(way, prompt, read, written, fault, nusd)

    def check_key(self, form: Format, headers: Mapping[str, str]) -> None:
        """Rejects a request without an accepted key, if any is needed."""
        if not self.options.api_keys:
            return
        key = form.key_of(headers)
        if not key:
            raise Rejected(Rejection.BAD_KEY, "No API key was sent")
        if key not in self.options.api_keys:
            raise Rejected(Rejection.BAD_KEY, f"Incorrect API key provided: {key[:3]}***")

    def _next_id(self) -> str:
        self._requests += 1
        return f"{self._requests:012d}"

    def _check_model(self, call: Call) -> None:
        options = self.options
        if options.models and call.model not in options.models:
            raise Rejected(
                Rejection.UNKNOWN_MODEL,
                f"The model `{call.model}` does not exist or you do not have access to it",
            )
        tokens = estimate_tokens(call.prompt)
        if options.context_tokens is not None and tokens > options.context_tokens:
            raise Rejected(
                Rejection.BAD_REQUEST,
                f"prompt is too long: {tokens} tokens > {options.context_tokens} maximum"
                " context length",
                code="context_length_exceeded",
            )

    def _serve_call(
        self, form: Format, call: Call, request_id: str, headers: dict[str, str]
    ) -> Served:
        options, stats = self.options, self._stats
        prompt = identify(call)
        # A call that the limits refuse is no attempt: else the faults would depend on the clock.
        attempt = stats.attempts(prompt) + 1
        fault = decide_fault(options, prompt, attempt)
        good = make_answer(call, options.seed, prompt)
        answer = spoil(call, good, fault, prompt)
        admission = self._limits.admit(good.input_tokens + good.output_tokens)
        if options.tells == "all":
            headers.update(form.limit_headers(self._limits.states()))
        tokens = good.input_tokens + good.output_tokens
        self._log.note(call.model, tokens, self._limits.in_flight, refused_by=admission.blocked_by)
        if not admission.is_admitted:
            return self._refuse(form, admission, request_id, headers)
        stats.count_admitted(prompt)
        response = _respond(form, call, answer, fault, request_id, headers)

        def end(*, was_sent: bool) -> None:
            self._limits.release()
            stats.count_ended(prompt, fault)
            if response is None or not was_sent:
                return
            stats.count_status(response.status)
            if response.status == 200:
                self._count_answer("online", prompt, answer, fault)

        hang_s = options.hang_s if fault is Fault.HANG else 0.0
        return Served(response, hang_s or draw_latency_s(options, prompt, attempt), end)

    def _refuse(
        self, form: Format, admission: Admission, request_id: str, headers: dict[str, str]
    ) -> Served:
        options = self.options
        allowed = {
            "requests": f"{options.rpm:g} requests a minute" if options.rpm else "",
            "tokens": f"{options.tpm:g} tokens a minute" if options.tpm else "",
            "concurrency": f"{options.concurrency} calls at once",
        }
        message = f"Rate limit reached: {allowed[admission.blocked_by or 'requests']}."
        if admission.retry_after_s is None:
            message = f"Request too large: it needs more than all of {message[20:]}"
        elif options.tells != "nothing":
            headers.update(form.retry_headers(admission.retry_after_s))
            message += f" Please try again in {admission.retry_after_s:.3f}s."
        error = Rejected(Rejection.RATE_LIMITED, message)
        return self._reject(form, error, request_id, headers)

    def _reject(
        self, form: Format, error: Rejected, request_id: str, headers: dict[str, str]
    ) -> Served:
        response = form.write_error(error, request_id)
        self._stats.count_status(response.status)
        return Served(Response(response.status, response.body, headers))


def _respond(
    form: Format,
    call: Call,
    answer: Answer,
    fault: Fault,
    request_id: str,
    headers: Mapping[str, str],
) -> Response | None:
    match fault:
        case Fault.HANG | Fault.DROP:
            return None
        case Fault.SERVER_ERROR | Fault.OVERLOADED:
            response = form.write_error(FAULT_ERRORS[fault], request_id)
        case _:
            return Response(200, form.write_answer(call, answer, request_id), headers)
    return Response(response.status, response.body, headers)


def charge_nusd(options: SimulatorOptions, way: Way, read: int, written: int) -> int:
    """What tokens cost, in whole nano-dollars: a price is in micro-dollars for one token."""
    micro_usd = Decimal(str(options.input_price)) * read
    micro_usd += Decimal(str(options.output_price)) * written
    share = Decimal(str(options.batch_price)) if way == "batch" else Decimal(1)
    return round(micro_usd * share * 1000)
