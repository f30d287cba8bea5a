"""A FastAPI endpoint without batching: a thread of the pool does a request's whole work."""

import argparse
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, Response, UploadFile

from benchmarks.serving.work import Ageing

app = FastAPI()
ageing = Ageing()


@app.get("/ready")
def ready() -> None:
    """Answers once the graphs are open."""


@app.post("/age")
def age(image: UploadFile, target: Annotated[str, Form()]) -> Response:
    """A portrait at a target, as PNG."""
    (picture,) = ageing.run([ageing.read(image.file.read())], [target])
    return Response(ageing.write(picture), media_type="image/png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    uvicorn.run(app, port=parser.parse_args().port, log_level="warning", access_log=False)
