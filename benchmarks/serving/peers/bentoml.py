"""BentoML: FastAPI routes in a service, and a second service that batches, which takes one list."""

import argparse
import asyncio
from typing import Annotated, Any

import bentoml
from fastapi import FastAPI, Form, Response, UploadFile

from benchmarks.serving.work import Ageing

app = FastAPI()


@bentoml.service(workers=1, traffic={"timeout": 60})
class Inference:
    """Pictures of batches of portraits."""

    def __init__(self) -> None:
        self.ageing = Ageing()

    @bentoml.api(batchable=True, max_batch_size=8, max_latency_ms=60_000)
    def run(self, jobs: list[Any]) -> list[Any]:
        """Portraits with their targets -> pictures."""
        return list(self.ageing.run([job[0] for job in jobs], [job[1] for job in jobs]))


@bentoml.service(workers=1, traffic={"timeout": 60})
@bentoml.asgi_app(app)
class Service:
    """Reads forms, calls the other service, writes pictures."""

    inference = bentoml.depends(Inference)

    def __init__(self) -> None:
        self.ageing = Ageing()

    @app.post("/age")
    async def age(self, image: UploadFile, target: Annotated[str, Form()]) -> Response:
        """A portrait at a target, as PNG."""
        portrait = await asyncio.to_thread(self.ageing.read, await image.read())
        (picture,) = await self.inference.to_async.run([(portrait, target)])
        data = await asyncio.to_thread(self.ageing.write, picture)
        return Response(data, media_type="image/png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    bentoml.serve(
        "benchmarks.serving.peers.bentoml:Service", port=parser.parse_args().port, blocking=True
    )
