"""Drawn tissue whose types are known, and an honest namer of windows that needs no training."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.cluster import KMeans
from slide_files import write_tiled_tiff

from histoloom.discovery.choose import ChooseConfig, choose
from histoloom.discovery.classifier import Window
from histoloom.discovery.cutting import Cutting
from histoloom.discovery.embed import embed
from histoloom.discovery.embedding_run import EmbedConfig
from histoloom.discovery.embeddings import open_chosen, open_table, vectors_of
from histoloom.discovery.parts import find_parts
from histoloom.discovery.tree import TypeTree
from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder
from histoloom.patches.folder import FolderImport, find_pictures
from histoloom.patches.importer import import_pictures
from histoloom.tissue import TissueTable

# Three stains on glass: two kinds of stroma, which are one coarse type, and tumour.
STAINS = np.array([[232, 160, 190], [200, 120, 180], [110, 60, 150]], np.uint8)
GLASS = (244, 244, 244)


@pytest.fixture(scope="session")
def tree() -> TypeTree:
    """Three types, of which the first two belong together."""
    centroids = STAINS.astype(np.float32) / np.linalg.norm(STAINS.astype(np.float32), axis=1, keepdims=True)
    ancestors = np.array([[0, 0, 1], [0, 1, 2]])
    return TypeTree((2, 3), centroids, ancestors, "color", "c" * 64)


@dataclass(frozen=True)
class ByColor:
    """Names each window by the share of its pixels that are nearest to each stain; glass counts for none."""

    tree: TypeTree
    window: Window

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        colors = np.concatenate([STAINS, np.array([GLASS], np.uint8)]).astype(np.float32)
        middle = windows[:, ::4, ::4, None].astype(np.float32)
        nearest = np.abs(middle - colors).sum(-1).argmin(-1)
        shares = np.stack([(nearest == i).mean((1, 2)) for i in range(3)], -1).astype(np.float32) + 1e-3
        return shares / shares.sum(1, keepdims=True)


@pytest.fixture(scope="session")
def stains() -> np.ndarray:
    """Color of each type."""
    return STAINS


@pytest.fixture
def by_color(tree) -> ByColor:
    return ByColor(tree, Window(32, 0.5))


@pytest.fixture(scope="session")
def known_map() -> np.ndarray:
    """640 x 800 level-0 px: three regions with slanted borders on a piece of tissue, 255 on the glass round it."""
    y, x = np.mgrid[:640, :800]
    semantic_map = np.where(x + y / 2 < 450, 0, np.where(y < 300, 1, 2)).astype(np.uint8)
    outside = (x < 60) | (x >= 740) | (y < 60) | (y >= 580)
    semantic_map[outside] = 255
    return semantic_map


@pytest.fixture(scope="session")
def known_pixels(known_map) -> np.ndarray:
    """The tissue of `known_map` in its stains, on glass."""
    pixels = np.full((*known_map.shape, 3), GLASS, np.uint8)
    inside = known_map != 255
    pixels[inside] = STAINS[known_map[inside]]
    grain = np.random.default_rng(0).normal(0, 6, known_map.shape)[..., None]
    return np.clip(pixels + grain * inside[..., None], 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def known_slide(known_pixels, tmp_path_factory):
    """The slide of `known_map` at 0.25 um/px."""
    return write_tiled_tiff(tmp_path_factory.mktemp("slides") / "a.tif", known_pixels)


@pytest.fixture(scope="session")
def known_dataset(known_map, tmp_path_factory):
    """Eighteen patches of 96 px by six cases with their true maps, windows of the known tissue; mpp 0.5."""
    home = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(18):
        y, x = int(rng.integers(60, 484)), int(rng.integers(60, 644))
        part = known_map[y : y + 96, x : x + 96]
        grain = rng.normal(0, 6, (96, 96, 1))
        for kind, pixels in (("images", np.clip(STAINS[part] + grain, 0, 255).astype(np.uint8)), ("maps", part)):
            path = home / kind / f"P{number % 6}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    config = FolderImport(mpp=0.5, val_share=0.2)
    table = TissueTable.from_names(["a", "b", "c"])
    import_pictures(find_pictures(home / "images", home / "maps", config), table, config, home / "dataset")
    return home / "dataset"


@pytest.fixture(scope="session")
def discovered(known_dataset, tmp_path_factory):
    """What the steps up to `histoloom discover cluster` leave, of windows of 32 px: three types by a random encoder."""
    folder = tmp_path_factory.mktemp("discovered") / "discovered"
    torch.manual_seed(0)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1))), folder.parent / "encoder")
    config = EmbedConfig(str(folder.parent / "encoder"), Cutting(size=32, stride=16), precision="float32")
    parts, _ = find_parts(known_dataset, config.cutting)
    embed(parts, config, folder, known_dataset)
    table = open_table(folder)
    choose(folder, ChooseConfig())
    rows = pa.Table.from_batches(open_chosen(folder).batches())
    vectors = vectors_of(rows)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    centroids = KMeans(3, n_init=4, random_state=0).fit(vectors).cluster_centers_.astype(np.float32)
    pair = np.argsort(np.linalg.norm(centroids - centroids[0], axis=1))[1]
    coarse = np.where(np.isin(np.arange(3), [0, pair]), 0, 1)
    tree = TypeTree((2, 3), centroids, np.stack([coarse, np.arange(3)]), table.encoder, table.fingerprint)
    tree.save(folder)
    places = rows.select(["slide", "x", "y", "size"]).append_column("type", pa.array(tree.assign(vectors)))
    pq.write_table(places, folder / "assignments.parquet")
    return folder
