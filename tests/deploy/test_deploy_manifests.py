"""The manifests for KubeRay and the Dockerfiles. No cluster and no builder of images is here to try them."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from archer.config.loading import load_config
from archer.driver.packing import custom, place, positive, reservations

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "deploy" / "kuberay"
DOCKER = ROOT / "deploy" / "docker"
SCHEMAS = ROOT.parent / "shared" / "data" / "kuberay"
KUBERNETES = "1.37"
NEEDS_SCHEMAS = pytest.mark.skipif(
    not SCHEMAS.is_dir(), reason="no shared/data/kuberay with the schemas of KubeRay 1.7 beside the checkout"
)
KINDS = {"RayCluster": "rayclusters", "RayJob": "rayjobs"}


def _documents(name: str) -> list[Any]:
    return list(yaml.safe_load_all((KUBERAY / name).read_text(encoding="utf-8")))


def _strict(schema: Any) -> Any:
    """Return a schema that refuses unknown fields, as the API server does, and leaves out OpenAPI's own types."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: _strict(value) for key, value in schema.items()}
    if found.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    if isinstance(schema.get("properties"), dict) and "additionalProperties" not in schema and "type" in schema:
        found["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return found


def _validator(kind: str) -> jsonschema.Draft202012Validator:
    schema = _strict(json.loads((SCHEMAS / f"{KINDS[kind]}-1.7.0.v1.json").read_text(encoding="utf-8")))
    schema["properties"]["metadata"] = {"type": "object"}  # the schema names no field of it
    return jsonschema.Draft202012Validator(schema)


def _cluster(name: str) -> Any:
    (document,) = _documents(name)
    return document["spec"] if document["kind"] == "RayCluster" else document["spec"]["rayClusterSpec"]


MANIFESTS = ["raycluster.yaml", "rayjob.yaml"]


@NEEDS_SCHEMAS
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests_follow_the_schemas_of_kuberay(name: str) -> None:
    (document,) = _documents(name)
    assert document["apiVersion"] == "ray.io/v1"
    assert [error.message for error in _validator(document["kind"]).iter_errors(document)] == []


@NEEDS_SCHEMAS
@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("authOptions", "mode"), "password"),
        (("enableInTreeAutoscaling",), "yes"),
        (("workerGroupSpecs", 0, "maxReplicas"), "eight"),
        (("workerGroupSpecs", 0, "replica"), 2),
        (("headGroupSpec", "template", "spec", "containers", 0, "livenessProbe", "tcpsocket"), {"port": 1}),
    ],
)
def test_a_value_out_of_range_is_found(path: tuple[Any, ...], value: Any) -> None:
    (document,) = _documents("raycluster.yaml")
    place_of: Any = document["spec"]
    for key in path[:-1]:
        place_of = place_of[key]
    place_of[path[-1]] = value
    assert list(_validator("RayCluster").iter_errors(document))


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_are_valid_for_kubernetes(name: str) -> None:
    cluster = _cluster(name)
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert len(groups) > 2
    for group in groups:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": group["template"]["spec"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_storage_is_valid_for_kubernetes_and_every_claim_exists() -> None:
    claims = _documents("storage.yaml")
    for claim in claims:
        kubernetes_validate.validate(claim, KUBERNETES, strict=True)
    names = {claim["metadata"]["name"] for claim in claims}
    for manifest in MANIFESTS:
        text = (KUBERAY / manifest).read_text(encoding="utf-8")
        assert set(re.findall(r"claimName: ([\w-]+)", text)) == names


@pytest.mark.parametrize("name", MANIFESTS)
def test_pods_are_unprivileged_probed_and_bounded_and_ask_for_a_token(name: str) -> None:
    cluster = _cluster(name)
    assert cluster["authOptions"] == {"mode": "token"}
    for group in [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]:
        spec = group["template"]["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= container.keys()
        ports = {container[probe]["tcpSocket"]["port"] for probe in container if probe.endswith("Probe")}
        given = group["rayStartParams"].get("node-manager-port", "6379")
        assert ports == {int(given)}
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


def _amount(text: str) -> float:
    return float(text.removesuffix("m")) / (1000 if text.endswith("m") else 1)


def test_the_cluster_of_the_job_holds_its_run_and_is_that_of_the_other_manifest() -> None:
    """The run's own packing, on the pods that the autoscaler may start."""
    (job,) = _documents("rayjob.yaml")
    assert _cluster("rayjob.yaml") == _cluster("raycluster.yaml")
    shell, flag, script = shlex.split(job["spec"]["entrypoint"])
    assert (shell, flag) == ("bash", "-c")
    command = shlex.split(script.rpartition("exec ")[2])
    assert command[:3] == ["archer", "train", "twenty_questions_7b"]
    config = load_config(command[2], command[3:])
    nodes = []
    for group in _cluster("rayjob.yaml")["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        limits = container["resources"]["limits"]
        resources = json.loads(json.loads(group["rayStartParams"]["resources"]))
        node = {"CPU": _amount(limits["cpu"]), "GPU": float(limits.get("nvidia.com/gpu", 0)), **resources}
        nodes += [node] * group["maxReplicas"]
    assert custom(config) == ["learner", "replay", "rollouts"]
    most = {"rollout worker": config.rollout.most_workers}
    wanted = [positive(f.each) for f in reservations(config) for _ in range(most.get(f.kind, f.number))]
    assert place(wanted, nodes) is not None


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_images_are_built_from_the_locks_and_run_as_a_user(kind: str) -> None:
    """No maintained parser of Dockerfiles is on PyPI, so the instructions are read line by line."""
    text = (DOCKER / f"{kind}.Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    known = "FROM|ENV|ARG|RUN|COPY|WORKDIR|USER|ENTRYPOINT|CMD"
    assert all(re.match(rf"(?:{known}) ", line) for line in lines)
    stages = [index for index, line in enumerate(lines) if line.startswith("FROM ")]
    assert len(stages) == 2
    final = lines[stages[1] :]
    assert final.index("USER 1000") > max(i for i, line in enumerate(final) if line.startswith("RUN "))
    assert not any("pip" in line for line in final)
    installs = [part for line in lines if line.startswith("RUN ") for part in line.split("&&") if "pip install" in part]
    assert all("--no-deps" in part for part in installs)
    assert any(f"-r requirements-{kind}.lock" in part for part in installs)
    sources = {word for line in lines for word in re.findall(r"^COPY (\S+) \.$", line)}
    assert all(source == "." or (ROOT / source).is_file() for source in sources)


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_the_builder_gets_what_the_wheel_needs_and_nothing_else(kind: str) -> None:
    lines = (DOCKER / f"{kind}.Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    kept = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
    assert all(list(ROOT.glob(name)) for name in kept)
    assert {"actors", "archer", "buffer", "configs", "envs", "learner", "pyproject.toml", "setup.py"} <= set(kept)
    assert not {"runs", "tests", ".git", ".venv"} & set(kept)
