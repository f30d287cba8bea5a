"""GET /metrics, for Prometheus."""

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from service.state import RunningService

router = APIRouter(tags=["operation"])


@router.get("/metrics", response_class=Response)
async def metrics(service: RunningService) -> Response:
    """All metrics, as text."""
    return Response(generate_latest(service.metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)
