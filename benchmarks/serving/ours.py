"""The service itself, on the bundle and the parser of the variables BUNDLE and PARSER."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from service.__main__ import main


def serve(arguments: Sequence[str] | None = None) -> int:
    """Serves on a port until it is told to stop, with the service's defaults, on the CPU."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    command = ["serve", "--port", parser.parse_args(arguments).port, "--provider", "cpu"]
    if "BUNDLE" in os.environ:
        command += ["--models", str(Path(os.environ["BUNDLE"]).parent)]
    if "PARSER" in os.environ:
        command += ["--parser", os.environ["PARSER"]]
    return main(command)


if __name__ == "__main__":
    sys.exit(serve())
