"""Images, compose, monitoring and Kubernetes are what their own tools take, and fit the service."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pinglow.serve.metrics import Metrics
from pinglow.serve.pool import Pool
from pinglow.serve.settings import ServeSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "containers"
if not FOLDER.is_dir():
    pytest.skip("only a checkout has containers/", allow_module_level=True)
MANIFEST = [*yaml.safe_load_all((FOLDER / "kubernetes" / "pinglow.yaml").read_text())]
DRAIN = 30  # seconds that the service takes at most


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def find_tool(name: str) -> str:
    """A command beside Python, or on the path."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}")
    return found


def test_the_dockerfile_is_as_hadolint_wants_it() -> None:
    command = [find_tool("hadolint"), "--failure-threshold", "style", FOLDER / "Dockerfile"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_the_images_copy_reaches_the_builder() -> None:
    text = (FOLDER / "Dockerfile").read_text()
    copied = {
        name
        for line in re.findall(r"^COPY (?!--)(.+)$", text, re.MULTILINE)
        for name in line.split()[:-1]
    }
    sent = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    assert copied == sent
    assert all((ROOT / name).exists() for name in copied)
    # The last stage is what is built if none is named.
    assert re.findall(r"^FROM .* AS (\w+)$", text, re.MULTILINE)[-1] == "cpu"


def test_compose_files_follow_its_specification() -> None:
    compose_spec = pytest.importorskip("compose_spec", reason="needs compose-spec")
    for name in ("compose.yaml", "compose.cuda.yaml"):
        compose_spec.PyCompose.from_yaml((FOLDER / name).read_text()).to_spec()
    compose = load("compose.yaml")
    for service in compose["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert "mem_limit" in service
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in compose["volumes"] or (FOLDER / source).is_dir()
    grace = compose["services"]["pinglow"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > DRAIN
    target = load("compose.cuda.yaml")["services"]["pinglow"]["build"]["target"]
    assert f" AS {target}\n" in (FOLDER / "Dockerfile").read_text()


@pytest.mark.parametrize("resource", MANIFEST, ids=lambda resource: resource["kind"])
def test_kubernetes_knows_the_resource(resource: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    kubernetes.validate(resource, "1.37", strict=True)


def test_the_resources_belong_together() -> None:
    resources = {resource["kind"]: resource for resource in MANIFEST}
    pod = resources["Deployment"]["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    labels = pod["metadata"]["labels"]
    assert resources["Deployment"]["spec"]["selector"]["matchLabels"] == labels
    assert resources["Service"]["spec"]["selector"] == labels
    assert resources["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == labels
    assert resources["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == labels
    wait = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["spec"]["terminationGracePeriodSeconds"] > wait + DRAIN
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert set(mounts) == {volume["name"] for volume in pod["spec"]["volumes"]}
    assert f"{mounts['token']}/token" in container["args"]
    assert {"cpu", "memory"} <= set(container["resources"]["limits"])
    uid = re.search(r"^USER (\d+):", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    assert uid is not None
    assert pod["spec"]["securityContext"]["runAsUser"] == int(uid[1])


def queries() -> Iterator[Any]:
    """Each query of the alerts and of the dashboard."""
    for group in load("prometheus/alerts.yml")["groups"]:
        for rule in group["rules"]:
            yield pytest.param(rule["expr"], id=rule["alert"])
    for panel in load("grafana/dashboards/pinglow.json")["panels"]:
        for target in panel["targets"]:
            yield pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")


@pytest.fixture(scope="module")
def metrics() -> set[str]:
    """Return the names that the service's /metrics has."""
    registry = Metrics(Pool(ServeSettings())).registry
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    return {
        family.name + ending
        for family in registry.collect()
        for ending in endings.get(family.type, ())
    }


@pytest.mark.parametrize("query", [*queries()])
def test_queries_are_of_metrics_that_the_service_has(query: str, metrics: set[str]) -> None:
    promql = pytest.importorskip("promql_parser", reason="needs promql-parser")
    asked = []

    def visit(node: Any) -> None:
        if isinstance(node, promql.VectorSelector):
            asked.append(node.name)

    promql.walk(promql.parse(query.replace("$__rate_interval", "1m")), visit)
    assert asked
    assert set(asked) - {"up"} <= metrics


def test_the_dashboard_asks_the_source_that_is_provisioned() -> None:
    (source,) = load("grafana/provisioning/datasources/prometheus.yml")["datasources"]
    dashboard = json.loads((FOLDER / "grafana" / "dashboards" / "pinglow.json").read_text())
    asked = {panel["datasource"]["uid"] for panel in dashboard["panels"]}
    assert asked == {source["uid"]}
    identifiers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identifiers)) == len(identifiers)
    (provider,) = load("grafana/provisioning/dashboards/pinglow.yml")["providers"]
    mounted = load("compose.yaml")["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounted


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "--syntax-only", FOLDER / "prometheus" / "prometheus.yml"),
        ("check", "rules", FOLDER / "prometheus" / "alerts.yml"),
        ("test", "rules", Path(__file__).with_name("alerts_test.yml")),
    ],
    ids=lambda arguments: f"{arguments[0]}-{arguments[1]}",
)
def test_prometheus_takes_its_files_and_alerts_fire(arguments: tuple[Any, ...]) -> None:
    command = [find_tool("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
