"""/livez and /readyz: whether the process lives, and whether it can answer."""

from fastapi import APIRouter

from service import errors, schemas
from service.state import RunningService

router = APIRouter(tags=["operation"])


@router.get("/livez")
async def livez() -> dict[str, str]:
    """200 while the process answers at all."""
    return {"status": "alive"}


@router.get("/readyz", responses=schemas.documented(errors.NotReady, errors.StoreUnavailable))
async def readyz(service: RunningService) -> schemas.Readiness:
    """200 once every graph has run and the store of faces answers."""
    await service.demand_ready()
    providers = {model.name: model.provider.value for model in service.predictor.models.values()}
    return schemas.Readiness(status="ready", models=providers)
