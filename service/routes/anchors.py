"""GET /anchors: what a model can be asked for."""

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic.json_schema import SkipJsonSchema

from service import errors, schemas
from service.state import RunningService

router = APIRouter(tags=["models"])


@router.get("/anchors", responses=schemas.documented(errors.InvalidRequest, errors.UnknownModel))
async def anchors(
    service: RunningService,
    model_name: Annotated[str | SkipJsonSchema[None], Query(alias="model", max_length=64)] = None,
) -> schemas.AnchorList:
    """The anchors, ages and groups of a model, the default one unless told otherwise."""
    manifest = service.predictor.model(model_name).manifest
    return schemas.AnchorList(
        model=manifest.name,
        anchors=[schemas.Anchor(**anchor.model_dump()) for anchor in manifest.anchors],
        age_range_years=manifest.age_range_years,
        continuous=manifest.continuous,
        groups=list(manifest.groups),
        default_group=manifest.default_group,
    )
