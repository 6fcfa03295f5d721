from __future__ import annotations

import pytest

from batchq.errors import UsageError
from batchq.simulator.options import SimulatorOptions, read_options


def test_an_empty_mapping_gives_a_provider_without_limits_and_faults() -> None:
    assert read_options({}) == SimulatorOptions()


def test_lists_and_whole_numbers_of_a_manifest_are_taken() -> None:
    options = read_options({"rpm": 60, "latency_ms": 200, "models": ["a", "b"]})

    assert (options.rpm, options.latency_ms, options.models) == (60.0, 200.0, ("a", "b"))


def test_every_problem_is_named_at_once_with_the_key_that_was_meant() -> None:
    with pytest.raises(UsageError) as caught:
        read_options({"latenzy_ms": 3, "rpm": "many", "drop_rate": 3, "models": "gpt"})

    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert any("latenzy_ms" in line and "did you mean latency_ms?" in line for line in lines)
    assert any("rpm" in line and "'many'" in line for line in lines)
    assert any("drop_rate" in line and "less than or equal to 1" in line for line in lines)
    assert any("models" in line and "'gpt'" in line for line in lines)


@pytest.mark.parametrize(
    ("key", "value"),
    [("rpm", 0), ("rpm", True), ("seed", 1.5), ("latency_ms", float("nan")), ("api_keys", [""])],
)
def test_a_value_that_makes_no_sense_is_refused(key: str, value: object) -> None:
    with pytest.raises(UsageError, match=key):
        read_options({key: value})


def test_fault_rates_that_add_up_to_more_than_all_calls_are_refused() -> None:
    with pytest.raises(UsageError, match=r"add up to 1\.2"):
        read_options({"drop_rate": 0.6, "garbage_rate": 0.6})


def test_a_change_keeps_the_options_that_it_does_not_name() -> None:
    before = read_options({"rpm": 60, "seed": 4})

    after = read_options({"rpm": None}, before)

    assert after == SimulatorOptions(seed=4)


def test_every_option_has_a_description_for_the_command_line() -> None:
    assert all(field.description for field in SimulatorOptions.model_fields.values())
