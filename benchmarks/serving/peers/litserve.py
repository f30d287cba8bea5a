"""LitServe: decode, batch, predict, unbatch, encode, in a worker process of its own."""

import argparse
from typing import Any

import litserve
from fastapi import Request, Response

from benchmarks.serving.work import Ageing


class AgeingApi(litserve.LitAPI):
    """The hooks that LitServe calls."""

    def setup(self, device: str) -> None:
        """Opens the graphs in the worker."""
        self.ageing = Ageing()

    def decode_request(self, request: Request) -> Any:
        """A form -> portrait and target."""
        return self.ageing.read(request["image"].file.read()), request["target"]

    def batch(self, inputs: list) -> Any:
        """Portraits and targets of a batch."""
        return inputs

    def predict(self, inputs: Any) -> Any:
        """Pictures of a batch."""
        return self.ageing.run([each[0] for each in inputs], [each[1] for each in inputs])

    def unbatch(self, output: Any) -> Any:
        """A batch's pictures, one by one."""
        return list(output)

    def encode_response(self, output: Any) -> Response:
        """A picture as PNG."""
        return Response(self.ageing.write(output), media_type="image/png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    port = parser.parse_args().port
    api = AgeingApi(max_batch_size=8, batch_timeout=0.005, api_path="/age")
    litserve.LitServer(api, accelerator="cpu").run(
        port=port, log_level="warning", generate_client_file=False
    )
