"""Small slides in the official layouts of Camelyon16, PANDA and TCGA; the recipes as shipped, trained for moments.

Only the training is made tiny: what is read, cut and kept is what a user gets who points the recipe at the download.
"""

import csv
import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from slide_files import write_aperio, write_asap, write_panda_mask, write_tiled_tiff

from histoloom.conditioning.likeness import CopyLimitConfig
from histoloom.errors import ConfigError
from histoloom.experiments.recipe import Recipe, Watch, read_recipe
from histoloom.experiments.run import run_recipe
from histoloom.fitting.loop import LoopConfig
from histoloom.models.autoencoder import AutoencoderConfig
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.dataset import read_description
from histoloom.patches.places import PlaceReader
from histoloom.patches.store import has_pixels, iter_rows, load_patches, splits
from histoloom.recipes import FOLDER as RECIPES
from histoloom.training.autoencoder import AutoencoderTraining
from histoloom.training.decoder import DecoderTraining
from histoloom.training.denoiser import DenoiserTraining

# Pale, middle and dark stain by label: far enough apart to be read back from pixels.
STAINS = np.array([(226, 180, 205), (200, 120, 170), (110, 60, 140), (150, 40, 90), (70, 30, 90)], np.float32)


def stained(labels: np.ndarray, seed: int) -> np.ndarray:
    """A slide that is tissue all over, in the stain of each label, with grain that is in focus."""
    grain = np.random.default_rng(seed).normal(0, 9, (*labels.shape, 1))
    return np.clip(STAINS[labels] + grain, 0, 255).astype(np.uint8)


def disc(width: int, height: int, x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def circle(x: float, y: float, radius: float) -> list[tuple[float, float]]:
    turns = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    return [(x + radius * np.cos(turn), y + radius * np.sin(turn)) for turn in turns]


@pytest.fixture(scope="module")
def camelyon16(tmp_path_factory) -> Path:
    """training/normal, training/tumor, training/lesion_annotations: metastases with an excluded middle."""
    root = tmp_path_factory.mktemp("data") / "CAMELYON16"
    for folder in ("normal", "tumor", "lesion_annotations"):
        (root / "training" / folder).mkdir(parents=True)
    for seed, name in enumerate(("tumor_001", "tumor_002", "tumor_018")):
        labels = (disc(1400, 1100, 700, 550, 380) & ~disc(1400, 1100, 700, 550, 120)).astype(int)
        write_tiled_tiff(root / "training" / "tumor" / f"{name}.tif", stained(1 + labels, seed))
        groups = [("_0", circle(700, 550, 380)), ("_2", circle(700, 550, 120))]
        write_asap(root / "training" / "lesion_annotations" / f"{name}.xml", groups)
    write_tiled_tiff(root / "training" / "normal" / "normal_001.tif", stained(np.ones((600, 600), int), 9))
    return root


@pytest.fixture(scope="module")
def panda(tmp_path_factory) -> Path:
    """train_images, train_label_masks, train.csv, of both hospitals; one Radboud slide lacks its mask."""
    root = tmp_path_factory.mktemp("data") / "panda"
    (root / "train_images").mkdir(parents=True)
    (root / "train_label_masks").mkdir()
    rows = []
    for seed, (name, hospital) in enumerate(
        [("0a1", "radboud"), ("0b2", "radboud"), ("0c3", "karolinska"), ("0d4", "karolinska"), ("0e5", "radboud")]
    ):
        labels = np.ones((900, 1100), np.uint8)
        labels[disc(1100, 900, 500, 450, 330)] = 2
        if hospital == "radboud":
            labels[disc(1100, 900, 620, 450, 150)] = 4
        write_tiled_tiff(root / "train_images" / f"{name}.tiff", stained(labels, seed), mpp=0.5)
        if name != "0e5":
            write_panda_mask(root / "train_label_masks" / f"{name}_mask.tiff", labels)
        rows.append({"image_id": name, "data_provider": hospital, "isup_grade": 2, "gleason_score": "3+4"})
    with (root / "train.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys())
        table.writeheader()
        table.writerows(rows)
    return root


@pytest.fixture(scope="module")
def tcga(tmp_path_factory) -> Path:
    """UUID/TCGA-*.svs as gdc-client leaves them: logs, a partial download, a frozen section."""
    root = tmp_path_factory.mktemp("data") / "gdc"
    names = ["TCGA-AA-0001-01Z-00-DX1", "TCGA-AA-0001-01Z-00-DX2", "TCGA-BB-0002-01Z-00-DX1", "TCGA-BB-0002-01A-01-TS1"]
    for seed, name in enumerate(names):
        folder = root / f"{seed}f5e-uuid"
        (folder / "logs").mkdir(parents=True)
        (folder / "logs" / f"{name}.svs.parcel").write_bytes(b"log")
        (folder / "annotations.txt").write_text("id\tsubmitter_id\n")
        labels = np.where(disc(1900, 1300, 600, 600, 400), 2, 1)
        write_aperio(folder / f"{name}.{seed}F5E.svs", stained(labels, seed))
    (root / "0f5e-uuid" / "TCGA-CC-0003-01Z-00-DX1.svs.partial").write_bytes(b"half")
    return root


def tiny(recipe: Recipe) -> Recipe:
    """The recipe with its data as they are and a few steps of a small model."""
    loop = LoopConfig(steps=2, batch_size=2, workers=0)
    autoencoder = AutoencoderTraining(
        size=32,
        model=AutoencoderConfig(
            latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)
        ),
        loop=loop,
    )
    decoder = DecoderTraining(size=32, channels=8, loop=loop)
    denoiser = DenoiserTraining(window=64, views=1, channels=(32, 64), blocks=(1, 1), loop=loop)
    few = CopyLimitConfig(pairs=0)
    return dataclasses.replace(
        recipe,
        autoencoder=autoencoder,
        decoder=decoder,
        denoiser=denoiser,
        watch=Watch(patches=1, steps=1, map_fidelity=False),
        copy_limit=few,
    )


def train(name: str, data: Path, out: Path, change=lambda recipe: recipe) -> Path:
    return run_recipe(tiny(change(read_recipe(RECIPES / name, data))), out)


def agreement(image: np.ndarray, semantic_map: np.ndarray, stain_of: dict[int, int]) -> float:
    """Share of labeled pixels whose color is that of their label."""
    wanted = np.stack([STAINS[stain] for stain in stain_of.values()])
    nearest = np.abs(image[:, :, None] - wanted).sum(-1).argmin(-1)
    labeled = semantic_map != 255
    return float((np.array(list(stain_of))[nearest] == semantic_map)[labeled].mean())


def test_camelyon16_is_cut_and_trained_on(camelyon16, tmp_path):
    model = train("camelyon16.toml", camelyon16, tmp_path / "run")
    assert HistoloomPipeline.load(model).table.names == ["normal", "tumor"]
    record = read_description(tmp_path / "run" / "dataset")
    assert [job["source"] for job in record["slides"]] == ["tumor/tumor_001.tif", "tumor/tumor_002.tif"]
    assert any("tumor_018" in note for note in record["notes"])
    assert any("normal_001.tif" in note for note in record["notes"])
    for split in ("train", "val"):
        patches = load_patches(tmp_path / "run" / "dataset", split)
        assert patches.images.shape[1:] == (256, 256, 3)
        for image, semantic_map in zip(patches.images, patches.semantic_maps, strict=True):
            assert agreement(image, semantic_map, {0: 1, 1: 2}) > 0.97


def test_panda_takes_one_hospital_and_its_labels(panda, tmp_path):
    train("panda.toml", panda, tmp_path / "run")
    record = read_description(tmp_path / "run" / "dataset")
    assert {job["source"] for job in record["slides"]} == {"0a1.tiff", "0b2.tiff"}
    assert any("0e5.tiff" in note for note in record["notes"])
    patches = load_patches(tmp_path / "run" / "dataset", "train")
    assert set(np.unique(patches.semantic_maps)) == {1, 2, 4}
    for image, semantic_map in zip(patches.images, patches.semantic_maps, strict=True):
        assert agreement(image, semantic_map, {1: 1, 2: 2, 4: 4}) > 0.97


def test_panda_of_the_other_hospital_needs_the_two_lines_that_the_recipe_names(panda, tmp_path):
    text = (RECIPES / "panda.toml").read_text()
    text = text.replace("data_provider=radboud", "data_provider=karolinska").replace(
        "panda-radboud", "panda-karolinska"
    )
    (tmp_path / "panda.toml").write_text(text.replace('where = ["data_provider=karolinska"] and', "and"))
    shutil.copy(RECIPES / "panda-karolinska.tissue.toml", tmp_path)
    recipe = tiny(read_recipe(tmp_path / "panda.toml", panda))
    run_recipe(recipe, tmp_path / "run")
    record = read_description(tmp_path / "run" / "dataset")
    assert {job["source"] for job in record["slides"]} == {"0c3.tiff", "0d4.tiff"}


def test_tcga_becomes_an_index_that_is_trained_on_from_the_slides(tcga, tmp_path):
    train("tcga.toml", tcga, tmp_path / "run")
    dataset = tmp_path / "run" / "dataset"
    rows = [row for split in splits(dataset) for row in iter_rows(dataset, split)]
    assert {row["case"] for row in rows} == {"TCGA-AA-0001", "TCGA-BB-0002"}
    assert not any("TS1" in row["source"] for row in rows)
    assert not has_pixels(dataset, "train")
    assert max(np.bincount([int(row["source"][0]) for row in rows])) == 4
    patches = load_patches(dataset, "train", PlaceReader(dataset).read)
    assert (patches.semantic_maps == 0).all()
    assert patches.images.std() > 10


def test_an_index_and_pixels_train_to_the_same_weights(camelyon16, tmp_path):
    def index(recipe: Recipe) -> Recipe:
        cut = dataclasses.replace(recipe.data.cut, pixels=False)
        return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, cut=cut))

    models = [
        train("camelyon16.toml", camelyon16, tmp_path / "pixels"),
        train("camelyon16.toml", camelyon16, tmp_path / "index", index),
    ]
    assert has_pixels(tmp_path / "pixels" / "dataset", "train")
    assert not has_pixels(tmp_path / "index" / "dataset", "train")
    weights = [(m / "denoiser" / "diffusion_pytorch_model.safetensors").read_bytes() for m in models]
    assert weights[0] == weights[1]


def test_the_same_recipe_again_cuts_nothing_twice(tcga, tmp_path):
    train("tcga.toml", tcga, tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "dataset").rglob("*")}
    train("tcga.toml", tcga, tmp_path / "run")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "dataset").rglob("*")} == before


@pytest.mark.parametrize("line", ['dataset = "d"\nslides = "s"', 'slides = "s"', ""])
def test_a_recipe_says_where_its_patches_come_from_in_one_way(tmp_path, line):
    (tmp_path / "r.toml").write_text(f"[data]\n{line}\n")
    with pytest.raises(ConfigError, match=r"r\.toml.*(exactly one of dataset|need `tissue`)"):
        read_recipe(tmp_path / "r.toml")
