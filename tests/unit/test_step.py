from __future__ import annotations

from pathlib import Path

import pytest

from batchq import ManifestError
from batchq.manifest import models as manifest
from batchq.manifest.models import STEP_ALIASES
from batchq.manifest.step import Step, StepKeys, build_manifest


def build(*steps: Step, base_dir: Path) -> manifest.Manifest:
    return build_manifest(
        steps, base_dir, providers=None, output_dir="outputs", labels={}, name="words"
    )


def test_every_key_of_a_step_and_every_longer_name_is_a_typed_parameter() -> None:
    known = {*manifest.Step.model_fields, *STEP_ALIASES}

    assert set(StepKeys.__annotations__) == known


def test_a_longer_name_means_the_same_as_the_short_one() -> None:
    long = Step(input_file="a.json", batch_only_items=["4001"], batch_stop_on_error=True)
    short = Step(input=Path("a.json"), only=("4001",), stop_on_error=True, queue=None)

    assert long == short
    assert (
        repr(long)
        == "Step(input_file='a.json', batch_only_items=['4001'], batch_stop_on_error=True)"
    )


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"batch_id_feild": "id"}, "no parameter 'batch_id_feild'; did you mean 'batch_id_field'?"),
        ({"zzz": 1}, "no parameter 'zzz'; there are analyze, batch_delay, "),
        ({"id_field": "a", "batch_id_field": "b"}, "got 'id_field' and 'batch_id_field', which"),
    ],
)
def test_a_wrong_name_is_a_type_error_that_says_what_to_write(keys, message) -> None:
    with pytest.raises(TypeError, match="Step") as raised:
        Step(**keys)

    assert message in str(raised.value)


def test_steps_make_the_manifest_that_yaml_would_make(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")

    made = build(
        Step(input_file="a.json", task="tasks:work", batch_only_items=[4001], timeout="5m"),
        Step(command=["cat"], output_file="cat.json", once=True),
        Step(command=["cat"], output_file="cat.json"),
        base_dir=tmp_path,
    )

    assert [step.name for step in made.steps] == ["work", "cat", "cat3"]
    assert (made.steps[0].only, made.steps[0].timeout) == (["4001"], 300.0)
    assert made.base_dir == tmp_path


def test_providers_are_taken_from_their_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[1]")
    file = tmp_path / "providers.yaml"
    file.write_text("providers:\n  sim: {kind: simulator, modle: x}\n")

    with pytest.raises(ManifestError) as raised:
        build(Step(input_file="a.json", task="tasks:work"), base_dir=tmp_path)

    assert f"{file}:2:26: providers.sim.modle: unknown key `modle`" in str(raised.value)
