"""The service on a Ray cluster: the same engine and the same routes, in replicas.

Ray Serve spreads requests over replicas, on several machines where the cluster has them, and starts
more of them as requests queue up. A face is kept in Redis, so that any replica answers for it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from service.app import create_app
from service.logs import configure_logging
from service.settings import Settings, SettingsError, setting_name

BUSY_REQUESTS = 4
"""Requests in progress at a replica beyond which another one is started."""


@dataclass(frozen=True)
class Scale:
    """How many replicas, and what each has."""

    least: int = 1
    most: int = 1
    gpus: float = 0.0
    """Of a GPU, for each replica; several share one below 1"""
    processors: float = 1.0

    def __post_init__(self) -> None:
        """Raises SettingsError for numbers that make no sense."""
        if not 1 <= self.least <= self.most:
            raise SettingsError("--replicas: must be at least 1, and --most-replicas no fewer")
        if self.gpus < 0 or self.processors <= 0:
            raise SettingsError("--gpus must not be negative, --processors must be above 0")


def application(settings: Settings, flags: Mapping[str, Any], scale: Scale) -> Any:
    """The application for `ray.serve.run`. Raises SettingsError where replicas share no store.

    A replica reads `flags` again, and its own machine's environment.
    """
    from ray import serve  # pyright: ignore[reportMissingImports]

    if scale.most > 1 and settings.face_store == "memory://":
        raise SettingsError(
            f"{setting_name('face_store')}: replicas share faces in Redis alone: redis://host:6379/0"
        )
    values = {name: str(value) for name, value in flags.items()}

    def build() -> FastAPI:
        configure_logging(settings.log_level, settings.log_format)
        return create_app(Settings.load(values), warm_first=True)

    deployment = serve.deployment(
        name="anchorage",
        # More than a replica lets in itself, which answers 503 with a time to come back.
        max_ongoing_requests=2 * settings.max_requests,
        autoscaling_config={
            "min_replicas": scale.least,
            "max_replicas": scale.most,
            "target_ongoing_requests": BUSY_REQUESTS,
        },
        ray_actor_options={"num_cpus": scale.processors, "num_gpus": scale.gpus},
        graceful_shutdown_timeout_s=settings.shutdown_timeout_s,
        health_check_period_s=2,
    )
    return deployment(serve.ingress(build)()).bind()


def run(settings: Settings, flags: Mapping[str, Any], scale: Scale) -> None:
    """Serves on this machine's address and port until it is interrupted.

    Joins the cluster that `RAY_ADDRESS` names, or starts one on this machine.
    """
    import ray  # pyright: ignore[reportMissingImports]
    from ray import serve  # pyright: ignore[reportMissingImports]

    ray.init(log_to_driver=True, include_dashboard=False, ignore_reinit_error=True)
    serve.start(http_options={"host": settings.host, "port": settings.port})
    serve.run(application(settings, flags, scale), name="anchorage", blocking=True)
