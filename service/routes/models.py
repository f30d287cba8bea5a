"""GET /models: what is served, on which terms, and how good it is."""

from fastapi import APIRouter

from service import schemas
from service.state import RunningService

router = APIRouter(tags=["models"])

NOTICE = (
    "Pictures are synthetic: they show no real past or future of anybody. Each model's licence is "
    "that of its weights, which is not that of the code (Apache-2.0): bundled weights are for "
    "research only. Faces are found with a landmark model trained on iBUG 300-W, whose terms "
    "exclude commercial use."
)


@router.get("/models")
async def models(service: RunningService) -> schemas.ModelList:
    """All models, with the terms of their weights and their measured quality."""
    served = []
    for model in service.predictor.models.values():
        manifest = model.manifest
        served.append(
            schemas.ServedModel(
                name=manifest.name,
                version=manifest.version,
                default=manifest.name == service.predictor.models.default,
                method=manifest.method,
                resolution=manifest.resolution,
                anchors=[anchor.name for anchor in manifest.anchors],
                age_range_years=manifest.age_range_years,
                continuous=manifest.continuous,
                groups=list(manifest.groups),
                default_group=manifest.default_group,
                precision=manifest.precision,
                preview=manifest.preview,
                licence=manifest.provenance.licence,
                data=list(manifest.provenance.data),
                images_seen=manifest.provenance.images_seen,
                quality=manifest.quality,
                parity=manifest.parity.model_dump(),
                digest=model.bundle.digest,
                provider=model.provider.value,
                runs={
                    stage.value: schemas.Runs(
                        best=costs.best,
                        seconds={size: round(cost, 6) for size, cost in costs.seconds.items()},
                    )
                    for stage, costs in service.predictor.costs(model).items()
                },
            )
        )
    return schemas.ModelList(models=served, default=service.predictor.models.default, notice=NOTICE)
