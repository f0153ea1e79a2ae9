"""Every command that resumes or writes whole: what it needs, what it writes, and what makes it another run."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

RECIPE = """
[data]
source = "images"
maps = "maps"
tissue = "tissue.toml"
pictures = { val_share = 0.4 }
[autoencoder]
size = 32
model = { latent_channels = 4, channels = [8, 8, 16], encoder_blocks = [1, 1, 1], decoder_blocks = [1, 1, 1] }
loop = { steps = 2, batch_size = 2, workers = 0 }
[denoiser]
window = 64
views = 1
channels = [32, 64]
blocks = [1, 1]
loop = { steps = STEPS, batch_size = 2, workers = 0, checkpoint_minutes = 1e-9 }
[copy_limit]
pairs = 0
[watch]
patches = 1
steps = 1
map_fidelity = false
"""
ORDER = """
count = 6
size = 64
band = [0.2, 0.95]
maps = "maps"
"""
DISTILLATION = """
initial_model = "model"
[data]
source = "images"
maps = "maps"
tissue = "tissue.toml"
pictures = { val_share = 0.4 }
[denoiser]
window = 64
views = 1
[distillation]
steps = [1, 2]
points = 2
loop = { steps = STEPS, batch_size = 2, workers = 0, checkpoint_minutes = 1e-9 }
[watch]
patches = 1
steps = 1
map_fidelity = false
"""


def replace_slide(folder: Path) -> None:
    shutil.copy(folder / "slides" / "a.tif", folder / "slides" / "b.tif")
    with (folder / "slides" / "b.tif").open("ab") as file:
        file.write(b"\0")  # no copy of the other one, which would be left out


def drop_a_row(path: Path) -> None:
    rows = pq.read_table(path)
    pq.write_table(rows.slice(1), path)


def repeat_a_row(path: Path) -> None:
    """Put the second row in place of the first: a dataset says how many rows it has."""
    rows = pq.read_table(path)
    pq.write_table(pa.concat_tables([rows.slice(1, 1), rows.slice(1)]), path)


def turn(path: Path) -> None:
    Image.fromarray(np.asarray(Image.open(path))[::-1].copy()).save(path)


def change_recipe(folder: Path, name: str = "r.toml", recipe: str = RECIPE) -> None:
    (folder / name).write_text(recipe.replace("STEPS", "3"))


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command; other settings of it; how one of its inputs changes; which folders it needs, and what it writes."""

    words: str
    other: str = ""  # more words, with which the command is another run
    change: Callable[[Path], None] | None = None  # of an input, in the folder of the trial
    needs: tuple[str, ...]
    out: str
    new_names: str = ""  # what `out` is called in `needs`, where the command adds to a folder
    logs: tuple[str, ...] = ()  # files and folders that hold seconds, or the history of a run
    kills: int = 2  # moments that are tried
    resumes: bool = True  # False: a killed run begins again, so other settings may, too


GRID = "--mpp 0.5 --size 32 --stride 32 --min-focus 0"
CASES = {
    "embed": Case(
        words=f"discover embed slides --out found --encoder encoder {GRID}",
        other="--float32",
        change=replace_slide,
        needs=("slides", "encoder"),
        out="found",
    ),
    "choose": Case(
        words="discover choose found --per-slide 20",
        other="--per-slide 10",
        change=lambda folder: drop_a_row(sorted((folder / "found" / "embeddings").iterdir())[0]),
        needs=("embedded", "slides", "encoder"),
        out="found",
        new_names="embedded",
    ),
    "cluster": Case(
        words="discover cluster found --levels 2,3",
        other="--levels 2",
        change=lambda folder: drop_a_row(folder / "found" / "chosen.parquet"),
        needs=("chosen", "slides", "encoder"),
        out="found",
        new_names="chosen",
    ),
    "classify": Case(
        words="discover classify clustered --out classifier --steps 2 --batch-size 4 --input 24 --depth 1 "
        "--val-share 0.5",
        other="--seed 1",
        change=lambda folder: drop_a_row(folder / "clustered" / "assignments.parquet"),
        needs=("clustered", "slides", "encoder"),
        out="classifier",
        logs=("README.md", "report.json"),
        kills=1,
    ),
    "maps of slides": Case(
        words="discover maps slides --by clustered --out drawn --stride 32",
        other="--smooth 2",
        change=replace_slide,
        needs=("clustered", "slides", "encoder"),
        out="drawn",
    ),
    "maps of patches": Case(
        words="discover maps dataset --by clustered --out drawn --stride 32 --types 2",
        other="--smooth 2",
        change=lambda folder: repeat_a_row(folder / "dataset" / "data" / "train-00000.parquet"),
        needs=("clustered", "slides", "encoder", "dataset"),
        out="drawn",
    ),
    "patches": Case(
        words="patches slides --annotations masks --tissue tissue.toml --out cut --size 64 --low 0 --high 1 "
        "--min-tissue 0 --min-focus 0",
        other="--seed 1",
        change=lambda folder: turn(folder / "masks" / "b.png"),
        needs=("slides", "masks", "tissue.toml"),
        out="cut",
    ),
    "import": Case(
        words="import images --maps maps --tissue tissue.toml --out imported",
        other="--seed 1",
        change=lambda folder: turn(folder / "images" / "P0_0.png"),
        needs=("images", "maps", "tissue.toml"),
        out="imported",
        resumes=False,
    ),
    "lumens": Case(
        words="lumens dataset --out lumened --contrast 0 --brightness 0.7",
        other="--name glass",
        change=lambda folder: repeat_a_row(sorted((folder / "dataset" / "data").iterdir())[0]),
        needs=("dataset",),
        out="lumened",
        resumes=False,
    ),
    "generate": Case(
        words="generate model --maps maps --out woven --steps 2 --copy-limit 1 --batch-size 1",
        other="--seed 1",
        change=lambda folder: turn(folder / "maps" / "P0_0.png"),
        needs=("model", "maps"),
        out="woven",
    ),
    "canvas": Case(
        words="canvas model --map masks/b.png --out slide.tif --steps 2 --window 128 --mpp 0.5",
        other="--seed 1",
        change=lambda folder: turn(folder / "masks" / "b.png"),
        needs=("model", "masks"),
        out="slide",
    ),
    "order": Case(
        words="generate model --order order.toml --out woven --steps 1 --batch-size 2",
        other="--seed 1",
        change=lambda folder: turn(folder / "maps" / "P0_0.png"),
        needs=("model", "maps", "order.toml"),
        out="woven",
        kills=1,
    ),
    "inpaint": Case(
        words="inpaint model --image images/P0_0.png --map maps/P0_0.png --mask maps/P0_1.png --out redrawn --steps 2",
        other="--seed 1",
        change=lambda folder: turn(folder / "maps" / "P0_0.png"),
        needs=("model", "images", "maps"),
        out="redrawn",
        kills=1,
        resumes=False,
    ),
    "pairs": Case(
        words="pairs model --maps maps --tissue gland --out pairs --steps 1",
        other="--seed 1",
        change=lambda folder: turn(folder / "maps" / "P0_0.png"),
        needs=("model", "maps"),
        out="pairs",
        kills=1,
        resumes=False,
    ),
    "bank": Case(
        words="bank model --out crops --tries 4 --keep 1",
        other="--seed 1",
        needs=("model",),
        out="crops",
        resumes=False,
    ),
    "bank of real crops": Case(
        words="bank --from dataset --out crops --per-type 1",
        other="--seed 1",
        change=lambda folder: repeat_a_row(folder / "dataset" / "data" / "train-00000.parquet"),
        needs=("dataset",),
        out="crops",
        kills=1,
        resumes=False,
    ),
    "export": Case(
        words="export woven --as coco --out out",
        other="--as yolo",
        change=lambda folder: turn(folder / "woven" / "maps" / "00000.png"),
        needs=("woven",),
        out="out",
        kills=1,
        resumes=False,
    ),
    "train": Case(
        words="train r.toml --out run",
        change=change_recipe,
        logs=("samples", "tensorboard"),
        needs=("images", "maps", "tissue.toml", "r.toml"),
        out="run",
        kills=1,
    ),
    "evaluate": Case(
        words="evaluate --real dataset --fake pictures --out report --encoder encoder --pairs 2 --cache cache.sqlite",
        other="--seed 1",
        change=lambda folder: turn(folder / "pictures" / "Q0.png"),
        needs=("dataset", "pictures", "encoder"),
        out="report",
        logs=("cache.sqlite",),
        kills=1,
        resumes=False,
    ),
    "distill": Case(
        words="distill d.toml --out run",
        change=lambda folder: change_recipe(folder, "d.toml", DISTILLATION),
        logs=("samples", "tensorboard"),
        needs=("images", "maps", "tissue.toml", "d.toml", "model"),
        out="run",
        kills=1,
    ),
    "train-encoder": Case(
        words="train-encoder dataset --out trained --steps 1 --start encoder",
        other="--seed 1",
        change=lambda folder: repeat_a_row(folder / "dataset" / "data" / "train-00000.parquet"),
        needs=("dataset", "encoder"),
        out="trained",
        kills=1,
    ),
    "downstream": Case(
        words="downstream --real dataset --fake other --out found.json --steps 1 --seeds 1 --batch-size 2",
        other="--balance 0.1",
        change=lambda folder: repeat_a_row(folder / "dataset" / "data" / "train-00000.parquet"),
        needs=("dataset", "other"),
        out="found.json",
        kills=1,
        resumes=False,
    ),
}
