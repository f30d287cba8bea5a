"""The routes, one noun a file: HTTP in, a domain call, HTTP out."""

from fastapi import APIRouter

from service.routes import age, anchors, docs, faces, health, interpolation, metrics, models, page

ROUTERS: tuple[APIRouter, ...] = (
    age.router,
    interpolation.router,
    faces.router,
    anchors.router,
    models.router,
    health.router,
    metrics.router,
    docs.router,
    page.router,
)
OPEN_ROUTERS: tuple[APIRouter, ...] = (health.router, docs.router, page.router)
"""Those that answer without an API key: they hold nothing of anybody's."""
