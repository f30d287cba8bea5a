"""Holds a server to its OpenAPI document: `python -m benchmarks.conformance --seconds 300`.

Sends what the document allows and what it does not, by schemathesis, and follows its links. Prints
the report; the exit status is 1 where an answer is not as documented, or 5xx.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.bundles import write_tiny_bundle, write_tiny_parser
from tests.service.conformance import hold_to_openapi
from tests.service.conftest import Server


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=40)
    parser.add_argument("--seconds", type=int, help="go on until then")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_bundle(folder / "models" / "tiny")
        write_tiny_parser(folder / "parser.onnx")
        settings: dict[str, object] = {
            "models": folder / "models",
            "parser": folder / "parser.onnx",
            "provider": "cpu",
        }
        server = Server(folder / "server.log", settings)
        try:
            server.wait_until_ready()
            found = hold_to_openapi(
                server.url,
                folder,
                examples=asked.examples,
                most_s=asked.seconds,
                seed=asked.seed,
            )
            print(found.report)
            for route, status in (
                ("/faces", 201),
                ("/faces/{face_id}", 200),
                ("/faces/{face_id}", 204),
                ("/age", 200),
                ("/interpolate", 200),
            ):
                count = server.metric("requests_total", route=route, status=str(status))
                print(f"{route} {status}: {count:.0f}")
        finally:
            server.stop()
    return 0 if found.passed else 1


if __name__ == "__main__":
    sys.exit(main())
