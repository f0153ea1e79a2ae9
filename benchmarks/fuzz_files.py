"""Every reader of a file that may come from elsewhere, and a small valid folder that they all read."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Kind:
    """A reader and the file of a valid folder that is damaged before it reads."""

    name: str
    file: str  # relative to the folder, may hold *
    read: Callable[[Path], object]


def write_valid(folder: Path) -> None:
    """One valid file of every kind, small, written by the project itself where it has a writer."""
    import pyarrow as pa
    import tifffile
    import torch

    from histoloom.conditioning.inputs import Crop
    from histoloom.discovery.embeddings import EMBEDDINGS, embedding_schema, open_writer
    from histoloom.evaluation.segmenter import SegmenterConfig, save_segmenter, train_segmenter
    from histoloom.generation.bank import CropBank, save_bank
    from histoloom.generation.patches import WeaveConfig
    from histoloom.generation.settings import DrawnMaps, Source
    from histoloom.generation.woven_folder import weave_folder
    from histoloom.models.autoencoder import AutoencoderConfig, build_autoencoder
    from histoloom.models.denoiser import Denoiser
    from histoloom.models.pipeline import HistoloomPipeline
    from histoloom.models.schedulers import make_sampler
    from histoloom.patches.folder import FolderImport, find_pictures
    from histoloom.patches.importer import import_pictures
    from histoloom.tissue import TissueTable

    rng = np.random.default_rng(0)
    table = TissueTable.from_names(["stroma", "gland", "tumor"])
    (folder / "tissue.toml").write_text(table.to_toml())
    for name, shape in (("images", (64, 64, 3)), ("maps", (64, 64))):
        for number in range(4):
            path = folder / "pictures" / name / f"p{number}" / "a.png"
            path.parent.mkdir(parents=True)
            Image.fromarray(rng.integers(0, 255 if len(shape) > 2 else 3, shape, dtype=np.uint8)).save(path)
    pairs = "".join(f"images/p{n}/a.png,maps/p{n}/a.png,p{n},{'val' if n == 3 else 'train'}\n" for n in range(4))
    (folder / "pictures" / "manifest.csv").write_text("image,map,case_id,split\n" + pairs)
    config = FolderImport()
    pictures = find_pictures(folder / "pictures" / "manifest.csv", None, config)
    import_pictures(pictures, table, config, folder / "dataset")
    ring = [[8, 8], [40, 8], [40, 40], [8, 40], [8, 8]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": "gland", "color": [1, 2, 3]}},
    }
    (folder / "a.geojson").write_text(json.dumps({"type": "FeatureCollection", "features": [feature] * 3}))
    points = "".join(f'<Coordinate Order="{i}" X="{x}" Y="{y}"/>' for i, (x, y) in enumerate(ring))
    (folder / "a.xml").write_text(
        '<?xml version="1.0"?><ASAP_Annotations><Annotations><Annotation Name="1" Type="Polygon" PartOfGroup="gland">'
        f"<Coordinates>{points}</Coordinates></Annotation></Annotations><AnnotationGroups/></ASAP_Annotations>"
    )
    pixels = rng.integers(90, 240, (256, 256, 3), dtype=np.uint8)
    tifffile.imwrite(
        folder / "slide.tif", pixels, tile=(128, 128), photometric="rgb", resolution=(2e4, 2e4), resolutionunit=3
    )
    tifffile.imwrite(folder / "labels.tif", (pixels[..., 0] % 3).astype(np.uint8), tile=(128, 128))
    torch.manual_seed(0)
    shape = AutoencoderConfig(
        latent_channels=4, channels=(8, 8, 16), encoder_blocks=(1, 1, 1), decoder_blocks=(1, 1, 1)
    )
    small = {"channels": (32, 64), "blocks": (1, 1), "token_channels": 32, "vector_channels": 8}
    statistics = {"latent_mean": [0.0, 0.1, -0.1, 0.2], "latent_std": [1.0, 0.9, 1.1, 0.8]}
    denoiser = Denoiser(num_types=3, latent_channels=4, condition_channels=16, **small, **statistics)
    scheduler, _ = make_sampler("flow")
    HistoloomPipeline(build_autoencoder(shape), denoiser, scheduler, table.to_rows()).save_pretrained(
        str(folder / "model")
    )
    save_bank(CropBank({"stain-00": [Crop(pixels[:32, :32], 0), Crop(pixels[32:64, :32], 1)]}), table, folder / "bank")
    tiny = SegmenterConfig(channels=(4, 8), size=32, steps=1, batch_size=2)
    save_segmenter(
        train_segmenter(pixels[None, :64, :64], pixels[None, :64, :64, 0] % 3, 3, tiny), folder / "segmenter"
    )
    (folder / "embedded" / EMBEDDINGS).mkdir(parents=True)
    columns = embedding_schema("colors", "0" * 16, 4, "float32")
    vectors = pa.FixedSizeListArray.from_arrays(rng.standard_normal(32, dtype=np.float32), 4)
    rows = [["s.svs"] * 8, list(range(8)), [0] * 8, [64] * 8, [0.5] * 8, ["case"] * 8, vectors]
    with open_writer(folder / "embedded" / EMBEDDINGS / "a.parquet", columns) as writer:
        writer.write_table(pa.table(rows, schema=columns))
    (folder / "levels.toml").write_text("[[level]]\ntypes = 1\nof = [0, 0]\n[[level]]\ntypes = 2\nof = [0, 1]\n")
    (folder / "recipe.toml").write_text(
        '[data]\nsource = "pictures"\nmaps = "maps"\ntissue = "tissue.toml"\n[autoencoder.loop]\nsteps = 3\n'
        "learning_rate = 1e-3\n[denoiser]\nwindow = 64\nviews = 2\nchannels = [32, 64]\nblocks = [1, 1]\n"
    )
    source = Source(maps=DrawnMaps(count=2, size=64))
    weave_folder(HistoloomPipeline.load(folder / "model"), source, WeaveConfig(steps=1), folder / "woven")


def kinds() -> list[Kind]:
    """Every reader of a file that may come from elsewhere."""
    from histoloom.discovery.embeddings import open_table
    from histoloom.discovery.levels import read_levels
    from histoloom.evaluation.segmenter import load_segmenter
    from histoloom.evaluation.sources import load_images
    from histoloom.experiments.recipe import read_recipe
    from histoloom.generation.bank import load_bank
    from histoloom.generation.woven_patch import read_provenance
    from histoloom.generation.woven_reader import read_woven
    from histoloom.models.pipeline import HistoloomPipeline
    from histoloom.patches.dataset import read_description
    from histoloom.patches.folder import FolderImport, find_pictures, patch_rows
    from histoloom.patches.store import load_patches
    from histoloom.slides.annotations import read_annotations
    from histoloom.slides.reader import open_slide
    from histoloom.slides.tissue import find_tissue
    from histoloom.tissue import TissueTable

    table = TissueTable.from_names(["stroma", "gland", "tumor"])

    def pictures(folder: Path) -> object:
        found = find_pictures(folder / "pictures" / "manifest.csv", None, FolderImport())
        return list(patch_rows(found, table, FolderImport()))

    def annotation(name: str) -> Callable[[Path], object]:
        return lambda folder: read_annotations(folder / name, table, (256, 256), 0.5)

    def slide(folder: Path) -> object:
        with open_slide(folder / "slide.tif", 0.5) as opened:
            return find_tissue(opened), opened.read(0, 0, 64, opened.mpp)

    def model(folder: Path) -> object:
        return HistoloomPipeline.load(folder / "model")

    return [
        Kind("tissue table", "tissue.toml", lambda f: TissueTable.load(f / "tissue.toml")),
        Kind("recipe", "recipe.toml", lambda f: read_recipe(f / "recipe.toml")),
        Kind("levels", "levels.toml", lambda f: read_levels(f / "levels.toml")),
        Kind("manifest", "pictures/manifest.csv", pictures),
        Kind("image", "pictures/images/p1/a.png", pictures),
        Kind("map", "pictures/maps/p2/a.png", pictures),
        Kind("shard", "dataset/data/train-00000.parquet", lambda f: load_patches(f / "dataset", "train")),
        Kind("dataset description", "dataset/dataset.json", lambda f: read_description(f / "dataset")),
        Kind("GeoJSON", "a.geojson", annotation("a.geojson")),
        Kind("ASAP", "a.xml", annotation("a.xml")),
        Kind("label TIFF", "labels.tif", annotation("labels.tif")),
        Kind("slide", "slide.tif", slide),
        Kind("model index", "model/model_index.json", model),
        Kind("denoiser config", "model/denoiser/config.json", model),
        Kind("autoencoder config", "model/autoencoder/config.json", model),
        Kind("scheduler config", "model/scheduler/scheduler_config.json", model),
        Kind("denoiser weights", "model/denoiser/*.safetensors", model),
        Kind("bank", "bank/stain-00/gland/*.png", lambda f: load_bank(f / "bank", table)),
        Kind("woven index", "woven/index.parquet", lambda f: read_woven(f / "woven")),
        Kind("woven image", "woven/images/00001.png", lambda f: (read_woven(f / "woven"), load_images(f / "woven"))),
        Kind("provenance", "woven/images/00000.png", lambda f: read_provenance(f / "woven/images/00000.png")),
        Kind("segmenter", "segmenter/segmenter.safetensors", lambda f: load_segmenter(f / "segmenter")),
        Kind("embeddings", "embedded/embeddings/a.parquet", lambda f: list(open_table(f / "embedded").batches())),
    ]
