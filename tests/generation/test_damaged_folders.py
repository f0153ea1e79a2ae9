"""Woven folders and crop banks that anybody has changed in any way are read, or refused by one line of ours."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histoloom.errors import HistoloomError
from histoloom.generation.bank import load_bank
from histoloom.generation.woven_patch import AnnotatedPatch, CropUse, Provenance, read_provenance
from histoloom.generation.woven_reader import read_woven
from histoloom.generation.woven_writer import write_patches
from histoloom.records import Record
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland"])
SEEDS = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A woven folder of two patches, and a bank of two crops."""
    home = tmp_path_factory.mktemp("folders")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    made = Provenance(1, "a", (CropUse("b", 1, 0, 0, 24, 24),), "map", 1.0, 1.0, 5, "unipc", "abc", "0", mpp=0.5)
    patch = AnnotatedPatch(image, (image[..., 0] % 2).astype(np.uint8), made)
    record = Record(command="test", format=1, settings={})
    write_patches(lambda first: [patch] * (2 - first), TABLE, home / "woven", record)
    for name in TABLE.names:
        (home / "bank" / name).mkdir(parents=True)
        Image.fromarray(image).save(home / "bank" / name / "a.png")
    return home


def damage(path: Path, rng: np.random.Generator) -> None:
    data = path.read_bytes()
    spoilt = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        spoilt[rng.integers(len(data))] = rng.integers(256)
    kinds = (bytes(spoilt), bytes(spoilt), data[: rng.integers(len(data))], data + data, b"", b"\xff\xfe" * 40)
    path.write_bytes(kinds[rng.integers(len(kinds))])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_damaged_folder_is_refused_by_one_line_or_read(folder, tmp_path, seed):
    rng = np.random.default_rng(seed)
    home = Path(shutil.copytree(folder, tmp_path / "copy"))
    paths = sorted(p for p in home.rglob("*") if p.is_file())
    damage(paths[seed % len(paths)], rng)
    for read in (
        lambda: read_woven(home / "woven"),
        lambda: read_provenance(home / "woven" / "images" / "00000.png"),
        lambda: load_bank(home / "bank", TABLE),
    ):
        message = ""
        try:
            read()
        except HistoloomError as error:
            message = str(error)
        assert "\n" not in message
        assert len(message) < 1000
