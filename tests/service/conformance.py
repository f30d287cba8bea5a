"""The whole OpenAPI document held against a running service, by schemathesis."""

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Findings:
    """What a run found: the number of requests, and the report for a person."""

    cases: int
    links_covered: int
    passed: bool
    report: str


def hold_to_openapi(
    url: str, folder: Path, *, examples: int, most_s: int | None = None, seed: int = 1
) -> Findings:
    """Sends what the document allows and what it does not, and follows its links.

    About `examples` requests of each kind to each operation, repeated for `most_s` where that is
    given. `folder` takes what schemathesis leaves behind. Every answer must have a documented
    status, media type and schema, and none may be 5xx; schemathesis.toml says what is not asked.
    """
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
        *("run", f"{url}/openapi.json", "--max-examples", str(examples), "--seed", str(seed)),
        *("--no-shrink", "--continue-on-failure"),
        *(["--max-time", str(most_s)] if most_s else []),
    ]
    environment = {
        **os.environ,
        "SCHEMATHESIS_HOOKS": "tests.service.drawn",
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
    }
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    cases = re.search(r"([\d,]+) generated", done.stdout)
    links = re.search(r"API Links:\s+(\d+) covered", done.stdout)
    return Findings(
        int(cases[1].replace(",", "")) if cases else 0,
        int(links[1]) if links else 0,
        done.returncode == 0,
        done.stdout + done.stderr,
    )
