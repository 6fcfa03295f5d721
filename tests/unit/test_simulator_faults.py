from __future__ import annotations

import statistics

import pytest

from batchq.simulator.faults import Fault, decide_fault, draw_latency_s
from batchq.simulator.options import SimulatorOptions

MIXED = SimulatorOptions(server_error_rate=0.1, garbage_rate=0.05, drop_rate=0.02, seed=3)


def test_the_faults_of_a_prompt_do_not_depend_on_the_order_of_calls() -> None:
    calls = [(prompt, attempt) for prompt in range(200) for attempt in (1, 2, 3)]

    forward = {call: decide_fault(MIXED, *call) for call in calls}
    backward = {call: decide_fault(MIXED, *call) for call in reversed(calls)}

    assert forward == backward


def test_faults_come_as_often_as_their_rates_say() -> None:
    faults = [decide_fault(MIXED, prompt, 1) for prompt in range(10_000)]

    assert faults.count(Fault.SERVER_ERROR) == pytest.approx(1000, abs=100)
    assert faults.count(Fault.GARBAGE) == pytest.approx(500, abs=70)
    assert faults.count(Fault.DROP) == pytest.approx(200, abs=50)
    assert faults.count(Fault.HANG) == 0


def test_the_next_attempt_is_drawn_anew() -> None:
    failed = [n for n in range(1000) if decide_fault(MIXED, n, 1) is not Fault.NONE]

    again = [n for n in failed if decide_fault(MIXED, n, 2) is not Fault.NONE]

    assert 0 < len(again) < len(failed) / 2


@pytest.mark.parametrize("fault", [fault for fault in Fault if fault is not Fault.NONE])
def test_a_rate_of_one_makes_every_call_fail_in_that_way(fault: Fault) -> None:
    options = SimulatorOptions(**{f"{fault}_rate": 1.0})

    assert {decide_fault(options, prompt, 1) for prompt in range(50)} == {fault}


def test_the_median_of_the_latency_is_as_given_and_its_spread_lognormal() -> None:
    options = SimulatorOptions(latency_ms=200, latency_sigma=0.5)

    latencies = sorted(draw_latency_s(options, prompt, 1) for prompt in range(4000))

    assert statistics.median(latencies) == pytest.approx(0.2, rel=0.05)
    assert latencies[int(0.8413 * 4000)] == pytest.approx(0.2 * 1.6487, rel=0.1)


def test_without_spread_every_call_takes_the_median() -> None:
    assert draw_latency_s(SimulatorOptions(latency_ms=50), 7, 1) == 0.05
