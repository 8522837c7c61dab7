"""How many replicas each deployment on Ray Serve has, and what each may take."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from mlplatform.config.base import Frozen

INGRESS = "ForecastAPI"
DEPLOYMENTS = (INGRESS, "FeastService", "PreprocessingService", "ModelService")


class AutoscalingConfig(Frozen):
    """Between how many replicas a deployment moves; `target_ongoing_requests` is per replica, delays are seconds."""

    min_replicas: int = Field(default=1, ge=1)
    max_replicas: int = Field(default=1, ge=1)
    target_ongoing_requests: float = Field(default=2.0, gt=0)
    upscale_delay_s: float = Field(default=30.0, ge=0)
    downscale_delay_s: float = Field(default=600.0, ge=0)

    @model_validator(mode="after")
    def _bounds(self) -> AutoscalingConfig:
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas is {self.min_replicas}, more than max_replicas, {self.max_replicas}; swap or raise one"
            )
        return self


class DeploymentConfig(Frozen):
    """One deployment: `replicas` or `autoscaling`, and what each replica may take.

    Without both, there are two replicas where the machine has cores enough, else one. `max_queued_requests` of -1 is
    no limit; what is beyond a limit is refused (503). A replica counts as dead after three health checks that failed,
    `health_check_period_s` apart; one whose process ended, at the next of them.
    """

    replicas: int | None = Field(default=None, ge=1)
    autoscaling: AutoscalingConfig | None = None
    # Replicas mostly wait for each other, so two cores are enough for all of them.
    num_cpus: float = Field(default=0.1, ge=0)
    num_gpus: float = Field(default=0.0, ge=0)
    max_ongoing_requests: int = Field(default=64, ge=1)
    max_queued_requests: int = Field(default=-1, ge=-1)
    health_check_period_s: float = Field(default=1.0, gt=0)
    health_check_timeout_s: float = Field(default=30.0, gt=0)
    graceful_shutdown_timeout_s: float = Field(default=10.0, ge=0)

    @model_validator(mode="after")
    def _one_way_to_scale(self) -> DeploymentConfig:
        if self.replicas is not None and self.autoscaling is not None:
            raise ValueError("replicas and autoscaling are both set, but exclude each other; leave one out")
        return self


class ServingConfig(Frozen):
    """The deployments on Ray Serve by name; those that are not named have the defaults.

    In `split` mode every step of a prediction is a deployment of its own, scaled by itself; in `fused` mode the ingress
    takes all steps, so nothing travels between processes. `dashboard` is that of a Ray instance that the server starts
    itself; it listens on the loopback interface.
    """

    mode: Literal["split", "fused"] = "split"
    dashboard: bool = False
    deployments: dict[str, DeploymentConfig] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _known(self) -> ServingConfig:
        unknown = sorted(set(self.deployments) - set(DEPLOYMENTS))
        if unknown:
            raise ValueError(f"unknown deployments {', '.join(unknown)}; known: {', '.join(DEPLOYMENTS)}")
        absent = [name for name in self.deployments if name not in self.names]
        if absent:
            raise ValueError(
                f"deployments {', '.join(absent)} do not exist in fused mode, where {INGRESS} takes all steps; leave "
                "them out, or set mode to split"
            )
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The deployments that the mode has."""
        return DEPLOYMENTS if self.mode == "split" else (INGRESS,)

    def of(self, deployment: str) -> DeploymentConfig:
        """Return what holds for a deployment."""
        return self.deployments.get(deployment) or DeploymentConfig()
