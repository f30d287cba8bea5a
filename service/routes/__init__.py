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
    inference.router,
    metrics.router,
    docs.router,
    page.router,
)
