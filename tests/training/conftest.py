import csv
import json
import multiprocessing
from multiprocessing.forkserver import ensure_running

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data as photographs

from model.ages import LIFESPAN_CLUSTERS
from model.bundle import Portrait
from model.portraits.align import Alignment
from model.portraits.parse import Parser
from model.portraits.portrait import cut_portrait
from training.__main__ import PARSER
from training.config import config_of
from training.data import masked, open_prepared
from training.loop import fit
from training.run import Run

TINY = {
    "resolution": 32,
    "width": 2,
    "discriminator_width": 2,
    "elements": 2,
    "latent": 8,
    "batch": 4,
    "images": 160,
    "reconstruction_images": 40,
    "discriminator_images": 40,
    "log_every": 40,
    "sample_every": 80,
    "checkpoint_every": 40,
    "average_half_life": 40.0,
    "threads": 1,
    "held_out": 3,
    # Also where the processor has bfloat16: numbers are compared closely.
    "precision": "float32",
}


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests run side by side, one for each core."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def process_server():
    """The server that forks the processes of pools, with PyTorch imported once for all."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(
        ["training.prepare", "training.loop"]
    )
    ensure_running()


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A prepared set of 12 cells x 6 portraits of 32 px: blotched ellipses, bluer with age."""
    folder = tmp_path_factory.mktemp("prepared")
    random = np.random.default_rng(0)
    rows, portraits = [], []
    y, x = np.mgrid[:32, :32]
    ellipse = (((x - 16) / 11) ** 2 + ((y - 16) / 14) ** 2 < 1).astype(np.uint8) * 255
    for cluster, gender, i in np.ndindex(6, 2, 6):
        colour = np.array([200 - 25 * cluster, 100 + 60 * gender, 40 + 30 * cluster])
        blotches = np.clip(colour + random.normal(0, 60, (4, 4, 3)), 0, 255).astype(np.uint8)
        image = np.asarray(Image.fromarray(blotches).resize((32, 32), Image.Resampling.BICUBIC))
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
def finished(prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("finished")
    run = Run(config_of(TINY), prepared, folder, "cpu")
    assert fit(run)
    return run


@pytest.fixture(scope="session")
def astronaut():
    """The astronaut's masked portrait, (64, 64, 3) uint8."""
    photo = photographs.astronaut()[16:189, 138:311]
    alignment = Alignment.of_aligned(*photo.shape[:2], 64)
    portrait = cut_portrait(photo, alignment, Parser.open(PARSER), Portrait().removed)
    kept = torch.from_numpy((portrait.kept * 255).round().astype(np.uint8))
    image = masked(torch.from_numpy(portrait.pixels.copy())[None], kept[None])[0]
    return image.permute(1, 2, 0).numpy()
