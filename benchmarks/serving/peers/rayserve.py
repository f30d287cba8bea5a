"""Ray Serve: a deployment behind FastAPI whose method gathers batches."""

import argparse
import asyncio
import logging
import time
from typing import Annotated, Any

from fastapi import FastAPI, Form, Response, UploadFile
from ray import serve

from benchmarks.serving.work import Ageing

app = FastAPI()


@serve.deployment(max_ongoing_requests=512)
@serve.ingress(app)
class Deployment:
    """One replica."""

    def __init__(self) -> None:
        self.ageing = Ageing()

    @serve.batch(max_batch_size=8, batch_wait_timeout_s=0.005)
    async def run(self, jobs: list[Any]) -> list[Any]:
        """Portraits with their targets -> pictures."""
        portraits, targets = [job[0] for job in jobs], [job[1] for job in jobs]
        return list(await asyncio.to_thread(self.ageing.run, portraits, targets))

    @app.get("/ready")
    async def ready(self) -> None:
        """Answers once the graphs are open."""

    @app.post("/age")
    async def age(self, image: UploadFile, target: Annotated[str, Form()]) -> Response:
        """A portrait at a target, as PNG."""
        portrait = await asyncio.to_thread(self.ageing.read, await image.read())
        picture = await self.run((portrait, target))
        data = await asyncio.to_thread(self.ageing.write, picture)
        return Response(data, media_type="image/png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    serve.start(http_options={"host": "127.0.0.1", "port": parser.parse_args().port})
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.run(Deployment.bind())
    while True:
        time.sleep(60)
