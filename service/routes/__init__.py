"""The routes, one noun a file: HTTP in, a domain call, HTTP out."""

from fastapi import APIRouter

from service.routes import (
    age,
    anchors,
    docs,
    faces,
    health,
    inference,
    interpolation,
    metrics,
    models,
    page,
)

ROUTERS: tuple[APIRouter, ...] = (
    age.router,
    interpolation.router,
    faces.router,
    anchors.router,
    models.router,
    health.router,
    inference.open_router,
    inference.router,
    metrics.router,
    docs.router,
    page.router,
)
OPEN_ROUTERS: tuple[APIRouter, ...] = (
    health.router,
    inference.open_router,
    docs.router,
    page.router,
)
"""Those that answer without an API key: they hold nothing of anybody's."""
