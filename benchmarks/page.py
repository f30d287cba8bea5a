"""From a dropped photograph to the first face on the page, beside the engine without a page.

Both take the same photograph to the first anchor of the bundled model. The page's time is taken in
headless Chromium, from the drop to the picture being painted; the engine's in this process: read,
detect, align, parse, encode, decode, write as WebP. Each round is one of each, in turn, and nothing
else of ours runs meanwhile. Chromium is the one on the PATH.

python -m benchmarks.page [PHOTO] [--rounds 15]
"""

import argparse
import asyncio
import base64
import io
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

from PIL import Image
from playwright.async_api import Page, async_playwright
from skimage import data

from service.marks import Mark
from service.media import PictureFormat
from service.observability import Metrics
from service.predictor import Predictor, open_predictor
from service.settings import Settings
from service.targets import of_anchor
from training.machine import processors

ROOT = Path(__file__).parents[1]
DROP = """async (text) => {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], "photo", { type: "image/jpeg" }));
  const first = () => document.querySelector("#anchors img");
  const old = first();
  const began = performance.now();
  document.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
  const frame = () => new Promise(requestAnimationFrame);
  while (first() === old || !first()?.complete) await frame();
  await frame();
  return (performance.now() - began) / 1000;
}"""
ALL_YEARS = """() => document.querySelector("#progress").value === 1
  && document.querySelector("#progress").hidden"""


@contextmanager
def server() -> Iterator[str]:
    """The address of a service that is ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "service", "serve", "--port", str(port)]
    process = subprocess.Popen([*command, "--log-level", "error"], cwd=ROOT)
    address = f"http://127.0.0.1:{port}"
    try:
        while not is_ready(address):
            if process.poll() is not None:
                raise RuntimeError("the service did not start")
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait()


def is_ready(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/readyz"):
            return True
    except OSError:
        return False


async def page_s(page: Page, photo: bytes) -> float:
    """Seconds from a drop to the first face; the years are left to end."""
    seconds = await page.evaluate(DROP, base64.b64encode(photo).decode())
    await page.wait_for_function(ALL_YEARS)
    return float(seconds)


async def engine_s(predictor: Predictor, photo: bytes) -> float:
    """Seconds from a photograph to the file of its first anchor."""
    manifest = predictor.model(None).manifest
    target = of_anchor(manifest, manifest.anchors[0].name)
    mark = Mark.of(manifest, in_photo=False)
    began = time.perf_counter()
    taken = await predictor.take_in(photo)
    pictures = predictor.pictures(
        taken,
        predictor.model(None),
        manifest.default_group,
        [target],
        lambda picture: predictor.encoded(picture, PictureFormat.WEBP, mark),
    )
    async with aclosing(pictures):
        await anext(pictures)
    seconds = time.perf_counter() - began
    await predictor.forget(taken.face_id)
    return seconds


async def measured(address: str, photo: bytes, rounds: int) -> tuple[list[float], list[float], str]:
    """Seconds of the page and of the engine, a round each, and Chromium's version."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with (
        open_predictor(Settings.load(), Metrics()) as predictor,
        async_playwright() as playwright,
    ):
        await predictor.warm_up()
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=arguments
        )
        page = await browser.new_page()
        await page.goto(address)
        await page.wait_for_selector("#anchors li")
        await page_s(page, photo)
        await engine_s(predictor, photo)
        pairs = [
            (await page_s(page, photo), await engine_s(predictor, photo)) for _ in range(rounds)
        ]
        version = browser.version
        await browser.close()
    return [one for one, _ in pairs], [other for _, other in pairs], version


def astronaut() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(data.astronaut()).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, help="a JPEG; the astronaut, 512 px")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    if shutil.which("chromium") is None:
        parser.error("chromium is not installed")
    photo = arguments.photo.read_bytes() if arguments.photo else astronaut()
    with server() as address:
        page, engine, version = asyncio.run(measured(address, photo, arguments.rounds))
    print(f"{processors()}, load {os.getloadavg()[0]:.1f}, Chromium {version}")
    for name, seconds in (("page", page), ("engine", engine)):
        spread = f"{min(seconds) * 1000:.0f} to {max(seconds) * 1000:.0f}"
        median = statistics.median(seconds)
        print(f"{name}: median {median * 1000:.0f} ms of {len(seconds)}, {spread}")


if __name__ == "__main__":
    main()
