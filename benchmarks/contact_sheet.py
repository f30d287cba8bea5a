"""Photographs through a running service: one contact sheet, a row per photograph.

    python -m benchmarks.contact_sheet --url http://127.0.0.1:8000 -o sheet.png a.jpg b.jpg ...

Each row is the portrait as the model sees it and the anchors of the default group. `--aligned`
sends pictures that are portraits already; `--cell` scales every picture for the eye.
"""

import argparse
import base64
import io
import json
import urllib.request
import uuid
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from training.sheets import Sheet


def multipart(fields: dict[str, str], image: bytes) -> tuple[bytes, str]:
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="photo"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    parts += [head.encode(), image, f"\r\n--{boundary}--\r\n".encode()]
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


def post(url: str, fields: dict[str, str], image: bytes) -> dict[str, Any]:
    body, kind = multipart(fields, image)
    headers = {"Content-Type": kind, "Accept": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers)) as answer:
        return json.load(answer)


def pictures(url: str, photo: bytes, aligned: bool) -> dict[str, Image.Image]:
    """The portrait and every anchor of one photograph, by caption."""
    flag = {"aligned": "true"} if aligned else {}
    face = post(f"{url}/faces", flag, photo)
    aged = post(f"{url}/age", {"target": "all", **flag}, photo)
    encoded = {"portrait": face["portrait"]}
    encoded |= {entry["target"]: entry["image"] for entry in aged["pictures"]}
    return {
        caption: Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")
        for caption, text in encoded.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--aligned", action="store_true")
    parser.add_argument("--cell", type=int, default=128)
    parser.add_argument("-o", "--output", type=Path, default=Path("sheet.png"))
    arguments = parser.parse_args()
    rows = [pictures(arguments.url, p.read_bytes(), arguments.aligned) for p in arguments.photos]
    captions = list(rows[0])
    sheet = Sheet(len(captions), len(rows), arguments.cell)
    sheet.head(captions)
    for place, row in enumerate(rows):
        for column, caption in enumerate(captions):
            sheet.put(place, column, np.asarray(row[caption]))
    sheet.image.save(arguments.output)


if __name__ == "__main__":
    main()
