"""The Serve application: the ingress and the services as deployments, bound to each other, scaled as configured."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mlplatform.config import INGRESS, ConfigError, DeploymentConfig, load_serving
from mlplatform.settings import Settings
from serving.local import served_settings
from serving.ray_ingress import ForecastAPI
from serving.ray_services import FeastService, ModelService, PreprocessingService

if TYPE_CHECKING:
    from ray.serve import Application

APPLICATION = "mlplatform"
# From so many cores on, a deployment has two replicas unless its configuration says otherwise.
CORES_FOR_TWO = 4


def build_application(args: Mapping[str, Any]) -> Application:
    """Return the Serve application for a cluster: `serve run serving.ray_app:build_application experiment=a,b`.

    Parameters:
        args: `experiment`: what to serve, as `--experiment` of the servers; `serving`: option of the configuration
            group `serving`. What is missing comes from the environment.

    Raises:
        ConfigError: if an experiment or option is unknown, a file cannot be used, or there are other arguments.
    """
    unknown = sorted(set(args) - {"experiment", "serving"})
    if unknown:
        raise ConfigError(f"unknown arguments {', '.join(unknown)}; known: experiment, serving")
    settings = served_settings(Settings.from_env(), args.get("experiment"))
    return application(replace(settings, serving_config=args.get("serving") or settings.serving_config))


def application(settings: Settings) -> Application:
    """Return the Serve application: the deployments that its mode has, bound to each other.

    Raises:
        ConfigError: if the option of the group `serving` is unknown, or its file cannot be used.
    """
    from ray import serve

    config = load_serving(settings.serving_config, settings)
    # Only the ingress checks tokens, and no replica signs; the others never get to see what that takes.
    public = replace(settings.without_signing_key(), admin_token=None, api_tokens=())
    services = [
        serve.deployment(**options_of(config.of(service.__name__)))(service).bind(public)
        for service in (FeastService, PreprocessingService, ModelService)
        if service.__name__ in config.names
    ]
    ingress = serve.deployment(name=INGRESS, **options_of(config.of(INGRESS)))
    whole: Application = ingress(serve.ingress()(ForecastAPI)).bind(settings.without_signing_key(), *services)
    return whole


def options_of(config: DeploymentConfig) -> dict[str, Any]:
    """Return a deployment's configuration as the options that Ray Serve takes."""
    options: dict[str, Any] = {
        "ray_actor_options": {"num_cpus": config.num_cpus, "num_gpus": config.num_gpus},
        "max_ongoing_requests": config.max_ongoing_requests,
        "max_queued_requests": config.max_queued_requests,
        "health_check_period_s": config.health_check_period_s,
        "health_check_timeout_s": config.health_check_timeout_s,
        "graceful_shutdown_wait_loop_s": 0.2,
        "graceful_shutdown_timeout_s": config.graceful_shutdown_timeout_s,
        "logging_config": {"enable_access_log": False},
    }
    if config.autoscaling is not None:
        return {**options, "autoscaling_config": config.autoscaling.model_dump()}
    return {**options, "num_replicas": config.replicas or (2 if (os.cpu_count() or 1) >= CORES_FOR_TWO else 1)}
