"""/v2: the Open Inference Protocol, which KServe and Triton clients speak, over JSON.

Here a model is its bundle's contract: masked portraits and weights over the anchors in, pictures
out. Nothing is detected, cut or kept; photographs go to POST /age.
"""

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Depends, Path, Request
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from service import errors
from service.errors import InvalidRequest, TooManyPictures
from service.models import Model
from service.schemas import documented
from service.state import ReadyPredictor, RunningService, caller_of, timed
from service.targets import group_of, mixed

router = APIRouter(prefix="/v2", tags=["open inference protocol"])
open_router = APIRouter(prefix="/v2", tags=["open inference protocol"])
"""What needs no key: health, and what the server is"""

PLATFORM = "onnx_anchorage"
ModelName = Annotated[str, Path(max_length=64)]
_MODEL = documented(errors.InvalidRequest, errors.UnknownModel, errors.NotReady)


class TensorMetadata(BaseModel):
    """A tensor's name, type and axes; -1 is any number of pictures."""

    name: str
    datatype: str
    shape: list[int]


class ServerMetadata(BaseModel):
    """GET /v2."""

    name: str
    version: str
    extensions: list[str]


class ModelMetadata(BaseModel):
    """GET /v2/models/{model}."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    parameters: dict[str, Any] = Field(description="The anchors, in order, and the groups.")


class RequestTensor(BaseModel):
    """A tensor of a request; its data flat or nested, in row-major order."""

    name: Literal["image", "weights"]
    datatype: Literal["UINT8", "FP32"]
    shape: list[int] = Field(min_length=2, max_length=4)
    data: list[Any]
    parameters: dict[str, Any] = Field(default_factory=dict)


class RequestedOutput(BaseModel):
    """An output asked for by name."""

    name: Literal["image"]
    parameters: dict[str, Any] = Field(default_factory=dict)


class InferenceRequest(BaseModel):
    """POST /v2/models/{model}/infer."""

    id: str | None = Field(None, max_length=64)
    inputs: list[RequestTensor] = Field(min_length=2, max_length=2)
    outputs: list[RequestedOutput] = Field(default_factory=list)
    parameters: dict[str, Any] = Field(
        default_factory=dict, description="`group`: the model's default group unless given."
    )


class ResponseTensor(BaseModel):
    """A tensor of an answer, its data flat."""

    name: str
    datatype: str
    shape: list[int]
    data: list[int]


class InferenceResponse(BaseModel):
    """What a model made."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseTensor]


@open_router.get("")
async def server_metadata(request: Request) -> ServerMetadata:
    """The server's name and version; no extension of the protocol is spoken."""
    return ServerMetadata(name="anchorage", version=request.app.version, extensions=[])


@open_router.get("/health/live")
async def live() -> dict[str, bool]:
    """200 while the process answers at all."""
    return {"live": True}


@open_router.get("/health/ready", responses=documented(errors.NotReady, errors.StoreUnavailable))
async def ready(service: RunningService) -> dict[str, bool]:
    """200 once every graph has run and the store of faces answers."""
    await service.demand_ready()
    return {"ready": True}


@router.get("/models/{model}", responses=_MODEL)
@router.get("/models/{model}/versions/{version}", responses=_MODEL)
async def model_metadata(
    predictor: ReadyPredictor, model: ModelName, version: str | None = None
) -> ModelMetadata:
    """A model's tensors."""
    served = _served(predictor.model(model), version)
    manifest = served.manifest
    side, anchors = manifest.resolution, [anchor.name for anchor in manifest.anchors]
    pictures = TensorMetadata(name="image", datatype="UINT8", shape=[-1, side, side, 3])
    weights = TensorMetadata(name="weights", datatype="FP32", shape=[-1, len(anchors)])
    return ModelMetadata(
        name=served.name,
        versions=[manifest.version],
        platform=PLATFORM,
        inputs=[pictures, weights],
        outputs=[pictures],
        parameters={
            "anchors": anchors,
            "groups": list(manifest.groups),
            "default_group": manifest.default_group,
            "continuous": manifest.continuous,
        },
    )


@router.get("/models/{model}/ready", responses=_MODEL)
@router.get("/models/{model}/versions/{version}/ready", responses=_MODEL)
async def model_ready(
    predictor: ReadyPredictor, model: ModelName, version: str | None = None
) -> dict[str, Any]:
    """200 where the model is served and warm."""
    return {"name": _served(predictor.model(model), version).name, "ready": True}


_INFERENCE = documented(
    errors.InvalidRequest,
    errors.UnknownModel,
    errors.TooManyPictures,
    errors.NotContinuous,
    errors.InvalidWeights,
    errors.UnknownGroup,
    errors.BodyTooLarge,
    errors.Overloaded,
    errors.NotReady,
    errors.TimedOut,
    errors.InferenceFailed,
    errors.InternalError,
)


@router.post("/models/{model}/infer", dependencies=[Depends(timed)], responses=_INFERENCE)
@router.post(
    "/models/{model}/versions/{version}/infer", dependencies=[Depends(timed)], responses=_INFERENCE
)
async def infer(
    request: Request,
    service: RunningService,
    predictor: ReadyPredictor,
    model: ModelName,
    asked: InferenceRequest,
    version: str | None = None,
) -> InferenceResponse:
    """Renders portraits, each at its weights over the anchors, in the batches of all callers."""
    served = _served(predictor.model(model), version)
    manifest = served.manifest
    group = group_of(manifest, _group_asked(asked))
    tensors = {tensor.name: tensor for tensor in asked.inputs}
    if set(tensors) != {"image", "weights"}:
        raise InvalidRequest("inputs: must be `image` and `weights`.")
    side, most = manifest.resolution, service.settings.max_pictures
    image = _array(tensors["image"], "UINT8", (side, side, 3), most)
    weights = _array(tensors["weights"], "FP32", (len(manifest.anchors),), most)
    if len(image) != len(weights):
        raise InvalidRequest("inputs: `image` and `weights` must have as many rows.")
    targets = [mixed(manifest, [float(weight) for weight in row]) for row in weights]
    portraits = list(image.astype(np.uint8))
    pictures = await predictor.render(served, portraits, group, targets, caller_of(request))
    stacked = np.stack(pictures)
    output = ResponseTensor(
        name="image",
        datatype="UINT8",
        shape=list(stacked.shape),
        data=stacked.ravel().tolist(),
    )
    return InferenceResponse(
        model_name=served.name, model_version=manifest.version, id=asked.id, outputs=[output]
    )


def _served(model: Model, version: str | None) -> Model:
    if version is not None and version != model.manifest.version:
        raise InvalidRequest(
            f"version: {model.name} is served in version {model.manifest.version} alone."
        )
    return model


def _group_asked(asked: InferenceRequest) -> str | None:
    group = asked.parameters.get("group")
    if group is not None and not isinstance(group, str):
        raise InvalidRequest("parameters.group: must be a name.")
    return group


def _array(
    tensor: RequestTensor, datatype: str, row: tuple[int, ...], most: int
) -> NDArray[np.generic]:
    """A tensor's data as (N, *row). Raises InvalidRequest or TooManyPictures."""
    name = f"inputs.{tensor.name}"
    if tensor.datatype != datatype:
        raise InvalidRequest(f"{name}.datatype: must be {datatype}.")
    count = tensor.shape[0]
    if count < 1 or tuple(tensor.shape[1:]) != row:
        axes = ", ".join(str(axis) for axis in row)
        raise InvalidRequest(f"{name}.shape: must be [pictures, {axes}].")
    if count > most:
        raise TooManyPictures(count, most)
    try:
        values = np.asarray(tensor.data, np.float64).ravel()
    except (TypeError, ValueError):
        raise InvalidRequest(f"{name}.data: must be numbers.") from None
    if len(values) != count * int(np.prod(row)):
        raise InvalidRequest(f"{name}.data: {len(values)} numbers do not fill the shape.")
    if not np.isfinite(values).all():
        raise InvalidRequest(f"{name}.data: must be finite numbers.")
    if datatype == "FP32":
        return values.reshape(count, *row).astype(np.float32)
    if ((values < 0) | (values > 255) | (values != np.rint(values))).any():
        raise InvalidRequest(f"{name}.data: must be whole numbers from 0 to 255.")
    return values.reshape(count, *row).astype(np.uint8)
