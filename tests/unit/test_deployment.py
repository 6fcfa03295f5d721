"""The files that others run batchq by: each against the schema of what reads it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import compose_spec
import kubernetes_validate
import promql_parser
import pytest
from ruamel.yaml import YAML

from batchq.cli.root import COMMANDS, cli
from batchq.settings import Settings

ROOT = Path(__file__).parents[2]
K8S = sorted((ROOT / "config/k8s").glob("*.yaml"))
UNITS = sorted((ROOT / "config/systemd").glob("*.service"))
KUBERNETES = "1.30"
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::([-?])([^}]*))?\}")


def interpolated(data: Any, env: dict[str, str]) -> Any:
    """Fills variables in as compose does: after the YAML was read, and only in texts."""
    if isinstance(data, dict):
        return {key: interpolated(value, env) for key, value in data.items()}
    if isinstance(data, list):
        return [interpolated(value, env) for value in data]
    if not isinstance(data, str):
        return data

    def fill(found: re.Match[str]) -> str:
        name, sign, rest = found[1], found[2], found[3] or ""
        if sign == "?" and not env.get(name):
            raise LookupError(f"{name}: {rest}")
        return env.get(name) or (rest if sign == "-" else "")

    return VARIABLE.sub(fill, data).replace("$$", "$")


def composed(env: dict[str, str]) -> Any:
    text = (ROOT / "docker-compose.yml").read_text("utf-8")
    return interpolated(YAML(typ="safe").load(text), env)


@pytest.fixture
def services() -> dict[str, Any]:
    env = {"REDIS_PASSWORD": "p", "FLOWER_BASIC_AUTH": "a:b"}
    whole = composed(env)
    compose_spec.PyCompose.from_json(json.dumps(whole)).to_spec()
    return dict(whole["services"])


def test_compose_wants_passwords(services: dict[str, Any]) -> None:
    for env in ({}, {"REDIS_PASSWORD": "p"}):
        with pytest.raises(LookupError, match="set "):
            composed(env)

    published = [port for one in services.values() for port in one.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_compose_runs_commands_and_settings_that_there_are(services: dict[str, Any]) -> None:
    ours = {name: one for name, one in services.items() if one.get("image") == "batchq"}

    assert set(ours) == {"coordinator", "worker", "cpu", "flower", "simulator"}
    for one in ours.values():
        assert accepts(one["command"])
        for name in one.get("environment", {}):
            assert not name.startswith("BATCHQ_") or is_setting(name)
    assert "--api-keys" in services["simulator"]["command"]  # else it refuses 0.0.0.0
    assert services["postgres"]["profiles"] == ["postgres"]
    assert "noeviction" in services["redis"]["command"]
    assert services["redis"]["command"][1:3] == ["--appendonly", "yes"]
    assert all("healthcheck" in one or one in ours.values() for one in services.values())
    assert seconds(services["worker"]["stop_grace_period"]) > Settings().grace_s


def seconds(text: str) -> float:
    return float(text.removesuffix("s"))


def is_setting(name: str) -> bool:
    return name.removeprefix("BATCHQ_").lower() in Settings.model_fields


def accepts(command: list[str]) -> bool:
    """Whether our command line has this command with these options."""
    name, *options = command
    if name in ("simulator", "flower"):  # which read their own
        return name in COMMANDS
    found = cli.get_command(None, name)  # type: ignore[arg-type]
    assert found is not None
    found.make_context(name, list(options), resilient_parsing=False)
    return True


def manifests() -> Iterator[Any]:
    for path in K8S:
        for document in YAML(typ="safe").load_all(path.read_text("utf-8")):
            yield pytest.param(document, id=f"{path.stem}-{document['kind']}")


@pytest.mark.parametrize("manifest", [*manifests()])
def test_kubernetes_takes_every_manifest(manifest: Any) -> None:
    if manifest["apiVersion"].startswith("keda.sh/"):
        return  # see below: test_keda_takes_the_scaled_object
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)

    for container in containers(manifest):
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        if container["image"].startswith("batchq"):
            assert accepts(container["args"])
            names = [one["name"] for one in container["env"]]
            assert all(is_setting(name) for name in names if name.startswith("BATCHQ_"))
            assert {"livenessProbe", "readinessProbe"} <= set(container)


def containers(manifest: Any) -> list[Any]:
    template = manifest["spec"].get("template")
    return list(template["spec"]["containers"]) if template else []


SCALED_OBJECT: dict[str, Any] = {
    "scaleTargetRef": {"name"},
    "minReplicaCount": int,
    "maxReplicaCount": int,
    "pollingInterval": int,
    "cooldownPeriod": int,
    "advanced": {"horizontalPodAutoscalerConfig"},
    "triggers": list,
}
"""What we use of KEDA's `ScaledObject` v1alpha1; its definition is not in any package."""
METRICS_API = {"url", "format", "valueLocation", "targetValue", "activationTargetValue"}


def test_keda_takes_the_scaled_object() -> None:
    scaled = YAML(typ="safe").load((ROOT / "config/k8s/keda.yaml").read_text("utf-8"))
    spec = scaled["spec"]
    [trigger] = spec["triggers"]

    assert (scaled["apiVersion"], scaled["kind"]) == ("keda.sh/v1alpha1", "ScaledObject")
    assert set(scaled) == {"apiVersion", "kind", "metadata", "spec"}
    assert set(spec) == set(SCALED_OBJECT)
    for name, known in SCALED_OBJECT.items():
        assert set(spec[name]) <= known if isinstance(known, set) else type(spec[name]) is known
    assert set(trigger) == {"type", "metricType", "metadata"}
    assert (trigger["type"], trigger["metricType"]) == ("metrics-api", "AverageValue")
    assert set(trigger["metadata"]) == METRICS_API
    assert {type(value) for value in trigger["metadata"].values()} == {str}
    assert trigger["metadata"]["format"] == "prometheus"
    autoscaler = {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": scaled["metadata"],
        "spec": {
            "scaleTargetRef": {"kind": "Deployment", **spec["scaleTargetRef"]},
            "minReplicas": max(1, spec["minReplicaCount"]),
            "maxReplicas": spec["maxReplicaCount"],
            **spec["advanced"]["horizontalPodAutoscalerConfig"],
        },
    }  # what KEDA makes of it
    kubernetes_validate.validate(autoscaler, KUBERNETES, strict=True)


def test_workers_are_scaled_by_the_load_of_their_queue_and_end_in_grace() -> None:
    by_kind = {document.values[0]["kind"]: document.values[0] for document in manifests()
               if document.values[0]["metadata"]["name"] == "batchq-worker"}  # fmt: skip
    pod = by_kind["Deployment"]["spec"]["template"]["spec"]
    [worker] = pod["containers"]
    scaled = by_kind["ScaledObject"]["spec"]
    [trigger] = scaled["triggers"]
    grace_s = float(next(one for one in worker["env"] if one["name"] == "BATCHQ_GRACE_S")["value"])

    assert scaled["scaleTargetRef"]["name"] == "batchq-worker"
    assert trigger["metadata"]["valueLocation"] == 'batchq_load{queue="llm"}'
    assert trigger["metadata"]["targetValue"] == worker["args"][worker["args"].index("-c") + 1]
    assert "replicas" not in by_kind["Deployment"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > grace_s


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_systemd_starts_commands_that_there_are(unit: Path) -> None:
    lines = dict(line.split("=", 1) for line in unit.read_text("utf-8").splitlines()
                 if "=" in line and not line.startswith("#"))  # fmt: skip
    program, *command = shlex.split(lines["ExecStart"].replace("%i", "llm"))

    assert program.endswith("/bin/batchq")
    assert accepts([word for word in command if not word.startswith("$")])
    assert float(lines["TimeoutStopSec"]) > Settings().grace_s or "flower" in unit.stem
    if shutil.which("systemd-analyze"):
        told = subprocess.run(
            ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
        ).stderr
        assert [line for line in told.splitlines() if "is not executable" not in line] == []


def test_alerts_and_panels_are_queries_that_prometheus_reads() -> None:
    rules = YAML(typ="safe").load((ROOT / "config/prometheus/batchq.rules.yaml").read_text())
    board = json.loads((ROOT / "config/grafana/batchq.json").read_text())
    queries = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    queries += [target["expr"] for panel in board["panels"] for target in panel["targets"]]

    for query in queries:
        promql_parser.parse(query)
    for rule in rules["groups"][0]["rules"]:
        assert {"summary", "description"} <= set(rule["annotations"])


def test_the_image_is_not_run_by_root_and_holds_what_it_needs() -> None:
    lines = (ROOT / "Dockerfile").read_text("utf-8").splitlines()
    told = {line.split()[0]: line for line in lines if line and line[0].isupper()}
    copied = [
        line.split()[1:-1] for line in lines if line.startswith("COPY") and "--from" not in line
    ]

    assert told["USER"] == "USER batchq"
    assert "HEALTHCHECK" in told
    assert all((ROOT / name).exists() for names in copied for name in names)
    extras = re.search(r"\[([a-z0-9,]+)\]", told["RUN"] + "".join(lines))
    assert extras is not None
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    assert all(re.search(rf"^{name} = \[", project, re.M) for name in extras[1].split(","))
