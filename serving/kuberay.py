"""The `RayService` of KubeRay, from the same configuration as `serving.ray_app`.

Run it with `python -m serving.kuberay --image <image>`; the image holds the platform, and gets its environment (stores,
registry, secrets) from the Secret or ConfigMap that `--env-from` names.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from mlplatform.config import load_serving
from mlplatform.settings import Settings
from serving.local import served_settings
from serving.ray_build import APPLICATION, options_of
from serving.ray_proxy import PROXY_ENVIRONMENT


def serve_config(settings: Settings) -> dict[str, Any]:
    """Return what `serve deploy` takes: the application, and the options of its deployments.

    Raises:
        ConfigError: if the option of the group `serving` is unknown, or its file cannot be used.
    """
    config = load_serving(settings.serving_config, settings)
    deployments = [{"name": name, **options_of(config.of(name))} for name in config.names]
    return {
        "http_options": {"host": "0.0.0.0", "port": 8000},  # noqa: S104 - inside of a pod, where probes come from outside
        "applications": [
            {
                "name": APPLICATION,
                "route_prefix": "/",
                "import_path": "serving.ray_app:build_application",
                "args": {"experiment": ",".join(settings.experiments), "serving": settings.serving_config},
                "deployments": deployments,
            }
        ],
    }


def ray_service(settings: Settings, image: str, env_from: str, workers: int = 1) -> dict[str, Any]:
    """Return the manifest of a `RayService`.

    Parameters:
        image: with the platform and its extra `ray`.
        env_from: Secret with the environment of the platform.
        workers: pods besides the head.

    The fields are those of KubeRay 1.5.1 and newer: https://docs.ray.io/en/latest/cluster/kubernetes/references/api.html
    """
    from importlib.metadata import version

    def pod(name: str) -> dict[str, Any]:
        own = [{"name": key, "value": value} for key, value in PROXY_ENVIRONMENT.items()]
        environment = {"env": own, "envFrom": [{"secretRef": {"name": env_from}}]}
        return {"spec": {"containers": [{"name": name, "image": image, **environment}]}}

    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": APPLICATION},
        "spec": {
            "serveConfigV2": yaml.safe_dump(serve_config(settings), sort_keys=False),
            "rayClusterConfig": {
                "rayVersion": version("ray"),
                # KubeRay makes the token that every call within the cluster must carry.
                "authOptions": {"mode": "token"},
                "headGroupSpec": {"rayStartParams": {}, "template": pod("ray-head")},
                "workerGroupSpecs": [
                    {"groupName": "workers", "replicas": workers, "rayStartParams": {}, "template": pod("ray-worker")}
                ],
            },
        },
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print the manifest."""
    parser = argparse.ArgumentParser(description="Print the RayService of KubeRay that serves predictions.")
    parser.add_argument("--image", required=True, help="image with the platform and its extra ray")
    parser.add_argument("--env-from", default=APPLICATION, help="Secret with the environment; default: %(default)s")
    parser.add_argument("--workers", type=int, default=1, help="pods besides the head; default: %(default)s")
    parser.add_argument("--experiment", help="as of the servers; default: from the environment")
    arguments = parser.parse_args(argv)
    settings = served_settings(Settings.from_env(), arguments.experiment)
    manifest = ray_service(settings, arguments.image, arguments.env_from, arguments.workers)
    sys.stdout.write(yaml.safe_dump(manifest, sort_keys=False))


if __name__ == "__main__":
    main()
