"""The deployments on Ray Serve are as configured, here and on a cluster, and calls outlive replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from mlplatform.config import DEPLOYMENTS, ConfigError, DeploymentConfig, load_serving
from mlplatform.settings import Settings
from serving import ray_calls
from serving.errors import ServingError
from serving.kuberay import ray_service
from serving.ray_build import build_application, options_of
from serving.ray_calls import repeated

# The fields of KubeRay's `RayService` (`ray.io/v1`, 1.5.1 and newer) that the manifest writes, with their types; what
# the custom resource requires is among them. Kubernetes drops a field that it does not know without a word, so a name
# that is wrong would be a setting that does not hold.
RAY_SERVICE = {
    "apiVersion": str,
    "kind": str,
    "metadata.name": str,
    "spec.serveConfigV2": str,
    "spec.rayClusterConfig.rayVersion": str,
    "spec.rayClusterConfig.authOptions.mode": str,
    "spec.rayClusterConfig.headGroupSpec.rayStartParams": dict,
    "spec.rayClusterConfig.workerGroupSpecs[].groupName": str,
    "spec.rayClusterConfig.workerGroupSpecs[].replicas": int,
    "spec.rayClusterConfig.workerGroupSpecs[].rayStartParams": dict,
    **{
        f"spec.rayClusterConfig.{group}.template.spec.containers[].{field}": str
        for group in ("headGroupSpec", "workerGroupSpecs[]")
        for field in ("name", "image", "env[].name", "env[].value", "envFrom[].secretRef.name")
    },
}


def leaves_of(value: Any, path: str = "") -> Iterator[tuple[str, type]]:
    """Yield the path and type of everything in a manifest that holds nothing further."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from leaves_of(part, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for part in value:
            yield from leaves_of(part, f"{path}[]")
    else:
        yield path, type(value)


def settings_with(folder: Path, text: str) -> Settings:
    (folder / "serving").mkdir()
    (folder / "serving" / "big.yaml").write_text(text)
    return replace(Settings.from_env({}), conf_dir=folder, serving_config="big", experiments=("a", "b"))


def test_the_packaged_options_name_every_deployment_of_their_mode() -> None:
    settings = Settings.from_env({})
    for name, deployments in (("default", DEPLOYMENTS), ("fused", ("ForecastAPI",))):
        config = load_serving(name, settings)
        assert set(config.deployments) == set(config.names) == set(deployments)


@pytest.mark.parametrize(("cores", "replicas"), [(2, 1), (3, 1), (4, 2), (64, 2)])
def test_there_are_two_replicas_where_there_are_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, replicas: int
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: cores)
    assert options_of(DeploymentConfig())["num_replicas"] == replicas
    assert options_of(DeploymentConfig(replicas=3))["num_replicas"] == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deployments: {Model: {}}", "unknown deployments Model"),
        ("deployments: {ModelService: {replicas: 0}}", "replicas"),
        ("deployments: {ModelService: {gpus: 1}}", "gpus"),
        ("deployments: {ModelService: {replicas: 1, autoscaling: {}}}", "exclude each other"),
        ("deployments: {ModelService: {autoscaling: {min_replicas: 3, max_replicas: 2}}}", "more than max_replicas"),
        ("mode: merged", "mode"),
        ("{mode: fused, deployments: {ForecastAPI: {}, ModelService: {}}}", "ModelService do not exist in fused mode"),
    ],
    ids=["deployment", "none", "key", "both", "bounds", "mode", "fused"],
)
def test_mistakes_are_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_serving("big", settings_with(tmp_path, text))


def test_an_unknown_option_or_argument_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown serving 'huge'; known: default, fused"):
        load_serving("huge", Settings.from_env({}))
    with pytest.raises(ConfigError, match="unknown arguments replicas"):
        build_application({"replicas": "2"})


def test_the_rayservice_says_what_the_configuration_says(tmp_path: Path) -> None:
    from ray.serve.schema import ServeDeploySchema

    scaling = "{min_replicas: 1, max_replicas: 4, target_ongoing_requests: 8}"
    settings = settings_with(
        tmp_path,
        f"deployments: {{FeastService: {{replicas: 2}}, ModelService: {{num_gpus: 1, autoscaling: {scaling}}}}}",
    )
    manifest = yaml.safe_load(yaml.safe_dump(ray_service(settings, "image:1", "secrets")))
    assert (manifest["apiVersion"], manifest["kind"]) == ("ray.io/v1", "RayService")
    assert dict(leaves_of(manifest)) == RAY_SERVICE
    # Ray's own schema, which refuses what it does not know.
    (application,) = ServeDeploySchema.model_validate(yaml.safe_load(manifest["spec"]["serveConfigV2"])).applications
    assert application.args == {"experiment": "a,b", "serving": "big"}
    deployments = {deployment.name: deployment for deployment in application.deployments}
    assert set(deployments) == set(DEPLOYMENTS)
    assert deployments["FeastService"].num_replicas == 2
    model = deployments["ModelService"]
    assert model.autoscaling_config["max_replicas"] == 4
    assert model.ray_actor_options.num_gpus == 1
    cluster = manifest["spec"]["rayClusterConfig"]
    assert cluster["authOptions"] == {"mode": "token"}
    for pod in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = pod["template"]["spec"]["containers"]
        environment = {item["name"]: item["value"] for item in container["env"]}
        assert environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == "serving.ray_proxy.middlewares"
        assert all(isinstance(value, str) for value in environment.values())


def test_the_rayservice_of_a_fused_server_has_one_deployment(tmp_path: Path) -> None:
    manifest = ray_service(settings_with(tmp_path, "mode: fused"), "image:1", "secrets")
    (application,) = yaml.safe_load(manifest["spec"]["serveConfigV2"])["applications"]
    assert [deployment["name"] for deployment in application["deployments"]] == ["ForecastAPI"]


@pytest.mark.parametrize(("deaths", "calls"), [(0, 1), (2, 3)])
def test_a_call_that_died_with_its_replica_is_repeated(
    monkeypatch: pytest.MonkeyPatch, deaths: int, calls: int
) -> None:
    from ray.exceptions import ActorDiedError

    monkeypatch.setattr(ray_calls, "PAUSES", (0.0, 0.0))
    made: list[int] = []

    async def call() -> str:
        made.append(1)
        if len(made) <= deaths:
            raise ActorDiedError
        return "answer"

    assert asyncio.run(repeated(call)) == "answer"
    assert len(made) == calls


def test_clients_are_told_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.exceptions import ActorDiedError
    from ray.serve.exceptions import BackPressureError

    monkeypatch.setattr(ray_calls, "PAUSES", (0.0,))
    for failure, code in ((ActorDiedError(), "service_unavailable"), (BackPressureError(1, 1), "overloaded")):

        async def call(failure: Exception = failure) -> None:
            raise failure

        with pytest.raises(ServingError) as refused:
            asyncio.run(repeated(call))
        assert (refused.value.status, refused.value.code) == (503, code)
        assert refused.value.headers == {"retry-after": "1"}
