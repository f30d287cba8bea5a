import csv
import json

import numpy as np
import pytest
import torch
from skimage import data as photographs

from model.ages import LIFESPAN_CLUSTERS
from model.bundle import Portrait
from model.portraits.align import Alignment
from model.portraits.parse import Parser
from model.portraits.portrait import cut_portrait
from training.__main__ import PARSER
from training.data import masked, open_prepared


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A prepared set of 12 cells x 6 portraits of 32 px: coloured ellipses, bluer with age."""
    folder = tmp_path_factory.mktemp("prepared")
    random = np.random.default_rng(0)
    rows, portraits = [], []
    y, x = np.mgrid[:32, :32]
    ellipse = (((x - 16) / 11) ** 2 + ((y - 16) / 14) ** 2 < 1).astype(np.uint8) * 255
    for cluster, gender, i in np.ndindex(6, 2, 6):
        colour = np.array([200 - 25 * cluster, 100 + 60 * gender, 40 + 30 * cluster])
        image = np.clip(colour + random.normal(0, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
        index = len(portraits)
        portraits.append(image)
        age = LIFESPAN_CLUSTERS[cluster].low_years
        source = "ffhq" if i else "aaf"
        split = "test" if i == 5 else "train"
        rows.append([index, f"{index}.png", age, ("female", "male")[gender], source, split])
    np.save(folder / "portraits.npy", np.stack(portraits))
    np.save(folder / "kept.npy", np.broadcast_to(ellipse, (len(rows), 32, 32)))
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "file", "age", "gender", "source", "split"])
        writer.writerows(rows)
    (folder / "data.json").write_text(json.dumps({"schema_version": 1}))
    return open_prepared(folder)


@pytest.fixture(scope="session")
def astronaut():
    """The astronaut's masked portrait, (64, 64, 3) uint8."""
    photo = photographs.astronaut()[16:189, 138:311]
    alignment = Alignment.of_aligned(*photo.shape[:2], 64)
    portrait = cut_portrait(photo, alignment, Parser.open(PARSER), Portrait().removed)
    kept = torch.from_numpy((portrait.kept * 255).round().astype(np.uint8))
    image = masked(torch.from_numpy(portrait.pixels.copy())[None], kept[None])[0]
    return image.permute(1, 2, 0).numpy()
