"""Mosec: processes that read, infer and write, behind a server in Rust; the body is the picture."""

import sys
from typing import Any

from mosec import Server, Worker

from benchmarks.serving.work import Ageing

TARGET = "50-69"


class Reader(Worker):
    """Portraits of bodies."""

    def __init__(self) -> None:
        super().__init__()
        self.ageing = Ageing()

    def deserialize(self, data: bytes) -> bytes:
        """The body as it is."""
        return data

    def forward(self, data: bytes) -> Any:
        """A body -> its portrait."""
        return self.ageing.read(data)


class Inference(Worker):
    """Pictures of batches of portraits."""

    def __init__(self) -> None:
        super().__init__()
        self.ageing = Ageing()

    def forward(self, data: list) -> list:
        """Portraits -> pictures."""
        return list(self.ageing.run(data, [TARGET] * len(data)))


class Writer(Worker):
    """PNG files of pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.ageing = Ageing()

    def forward(self, data: Any) -> bytes:
        """A picture -> PNG."""
        return self.ageing.write(data)

    def serialize(self, data: bytes) -> bytes:
        """The answer as it is."""
        return data


if __name__ == "__main__":
    # Mosec reads its own flags: --port, --timeout.
    if len(sys.argv) == 2:
        sys.argv[1:] = ["--port", sys.argv[1], "--timeout", "60000", "--log-level", "error"]
    server = Server()
    server.append_worker(Reader, num=2)
    server.append_worker(Inference, num=1, max_batch_size=8, max_wait_time=5)
    server.append_worker(Writer, num=1)
    server.run()
