"""Sends the hostile images to a server: `python -m benchmarks.hostile --rounds 3`.

Prints the slowest refusals, the slowest searches for a face that is not there, wrong answers, and
the server's resident memory after each round. The exit status is 1 where an answer is wrong or a
refusal takes MOST_MS or longer. A refusal is an answer that needs no search for a face.
"""

import argparse
import re
import sys
import tempfile
import time
from pathlib import Path

from tests.bundles import write_tiny_bundle, write_tiny_parser
from tests.service.conftest import Server
from tests.service.hostile import NO_FACE, TAKEN, specimens

MOST_MS = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds: int = parser.parse_args().rounds
    corpus = specimens()
    print(f"{len(corpus)} files, {sum(len(each.file) for each in corpus) / 1e6:.1f} MB")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tiny_bundle(folder / "models" / "tiny")
        write_tiny_parser(folder / "parser.onnx")
        # Faces that are taken in expire at once, so that they do not count as growth.
        settings = {
            "models": folder / "models",
            "parser": folder / "parser.onnx",
            "provider": "cpu",
            "face_ttl_s": 1,
        }
        server = Server(folder / "server.log", dict(settings))
        refused: dict[str, float] = {}
        searched: dict[str, float] = {}
        wrong: set[str] = set()
        try:
            server.wait_until_ready()
            print(f"before: {_resident_mb(server):.0f} MB")
            for number in range(rounds):
                for each in corpus:
                    sent = (each.file_name, each.file, each.media_type)
                    started = time.perf_counter()
                    response = server.client.post("/faces", files={"image": sent})
                    ms = (time.perf_counter() - started) * 1000
                    code = "" if response.is_success else response.json()["code"]
                    answer = (response.status_code, code)
                    if answer not in each.answers:
                        wrong.add(f"{each.name}: {answer}, not {each.answers}")
                    kept = searched if answer in (TAKEN, NO_FACE) else refused
                    kept[each.name] = max(ms, kept.get(each.name, 0.0))
                time.sleep(2)
                print(f"round {number + 1}: {_resident_mb(server):.0f} MB")
        finally:
            server.stop()
    for title, kept in (("refusals", refused), ("searches", searched)):
        print(f"slowest of {len(kept)} {title}, the worst of {rounds} rounds:")
        for name, ms in sorted(kept.items(), key=lambda item: -item[1])[:5]:
            print(f"  {ms:7.1f} ms  {name}")
    for line in sorted(wrong):
        print(f"wrong: {line}")
    return 1 if wrong or max(refused.values()) >= MOST_MS else 0


def _resident_mb(server: Server) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
