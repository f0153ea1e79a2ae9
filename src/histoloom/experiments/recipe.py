"""One experiment as a TOML file: data, autoencoder, decoder, denoiser, who watches, and what is reproduced."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from histoloom.conditioning.inputs import Conditioning
from histoloom.conditioning.likeness import CopyLimitConfig
from histoloom.config import build, load_recipe, to_toml
from histoloom.errors import ConfigError, OutputError
from histoloom.evaluation.downstream import DownstreamConfig
from histoloom.evaluation.segmenter import SegmenterConfig
from histoloom.generation.patches import WeaveConfig
from histoloom.patches.folder import FolderImport
from histoloom.patches.rules import SlideDataset
from histoloom.training.autoencoder import AutoencoderTraining
from histoloom.training.decoder import DecoderTraining
from histoloom.training.denoiser import DenoiserTraining


@dataclass(frozen=True)
class DataSource:
    """Where patches come from: a patch dataset, pictures and maps to import, or slides to cut. Paths are relative to
    the recipe, those of slides to `root`."""

    dataset: str = ""  # folder made by `histoloom import` or `histoloom patches`
    source: str = ""  # or: image folder, or manifest.csv
    maps: str = ""  # folder of maps; not for a manifest
    tissue: str = ""  # tissue.toml of the pictures or slides
    split: str = "train"  # what to train on
    pictures: FolderImport = field(default_factory=FolderImport)
    root: str = ""  # folder of the slides' download, as in `histoloom train --data`
    slides: str = ""  # or: folder of slides
    annotations: str = ""  # folder of their annotations, if any
    listing: str = ""  # CSV file that names the slides to take, if any
    cut: SlideDataset = field(default_factory=SlideDataset)

    def __post_init__(self):
        if [bool(self.dataset), bool(self.source), bool(self.slides)].count(True) != 1:
            raise ConfigError("give either dataset (a folder of patches), source (pictures to import) or slides")
        if not (self.dataset or self.tissue):
            raise ConfigError("pictures and slides need tissue, the table that says what map values and classes mean")


@dataclass(frozen=True)
class Watch:
    """What is looked at while training: `patches` woven at each checkpoint, and read by a segmenter."""

    patches: int = 8
    steps: int = 20  # of the sampler
    map_fidelity: bool = True  # a segmenter, trained first on the same patches, reads what is woven
    segmenter: SegmenterConfig = field(default_factory=lambda: SegmenterConfig(steps=400))


@dataclass(frozen=True)
class Reproduction:
    """`histoloom reproduce`: every conditioning trained, woven from and measured at one equal budget.

    Networks are those of `[denoiser]`, always from random weights; one autoencoder serves all.
    """

    conditionings: tuple[Conditioning, ...] = (
        "unconditional",
        "map",
        "embedding",
        "crops-in-place",
        "crops-as-reference",
    )
    autoencoder_of: str = ""  # folder, hub name or bundled name of a model; empty: the recipe's autoencoder
    steps: int = 600  # of training, for each conditioning
    views: int = 4  # augmented views per patch in the shared cache of latents
    patches: int = 237  # woven for each conditioning, from maps and crops of the training split
    weave: WeaveConfig = field(default_factory=WeaveConfig)
    encoders: tuple[str, ...] = ("histoloom-small",)
    pairs: int = 100  # images and crops searched for copied parts, 100 or more
    segmenter: SegmenterConfig = field(default_factory=lambda: SegmenterConfig(steps=400))  # reads maps off images
    downstream: DownstreamConfig = field(default_factory=lambda: DownstreamConfig(steps=100))
    shown: int = 6  # patches on the contact sheet
    seed: int = 0

    def __post_init__(self):
        if not self.conditionings or len(set(self.conditionings)) < len(self.conditionings):
            raise ConfigError("name one conditioning at least, none of them twice")
        if min(self.steps, self.views, self.shown) < 1 or self.patches < 2 or self.pairs < 100 or not self.encoders:
            raise ConfigError("steps, views, shown must be 1 or more, patches 2, pairs 100; name one encoder at least")
        if self.weave.copy_limit is not None:
            raise ConfigError("leave copy_limit out of weave: a conditioning that copies shall be seen to copy")


@dataclass(frozen=True)
class Recipe:
    """One experiment."""

    data: DataSource
    autoencoder: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    decoder: DecoderTraining | None = None  # further training of the autoencoder's decoder, whichever that is
    denoiser: DenoiserTraining = field(default_factory=DenoiserTraining)
    watch: Watch = field(default_factory=Watch)
    copy_limit: CopyLimitConfig = field(default_factory=CopyLimitConfig)  # of the finished model
    reproduce: Reproduction = field(default_factory=Reproduction)
    pretrained_autoencoder: str = ""  # folder or hub name of any diffusers autoencoder, instead of training one
    initial_model: str = ""  # folder, hub name or bundled name of a model whose denoiser is trained further


def read_recipe(path: Path | str, root: Path | str | None = None) -> Recipe:
    """The recipe of a TOML file, its paths made absolute; raises ConfigError naming table and key.

    A model or autoencoder is a folder beside the recipe where there is one of that name, else a hub or bundled name.
    `root` is the folder of the slides' download, instead of what the recipe says.
    """
    path = Path(path)
    values = load_recipe(path)
    data = values.get("data")
    data = data if isinstance(data, dict) else {}  # `build` refuses what is no table
    if root is not None and not data.get("slides"):
        raise ConfigError(f"{path}: names no slides, so there is nothing to look for in {root}; leave out --data")
    if root is not None:
        data["root"] = os.path.abspath(root)
    for key in ("root", "dataset", "source", "maps", "tissue", "slides", "annotations", "listing"):
        if isinstance(data.get(key), str) and data[key]:
            of_slides = key in ("slides", "annotations", "listing") and isinstance(data.get("root"), str)
            home = path.parent / data["root"] if of_slides else path.parent
            data[key] = os.path.abspath(home / os.path.expanduser(data[key]))
    for key in ("pretrained_autoencoder", "initial_model"):
        if isinstance(values.get(key), str) and values[key] and (path.parent / values[key]).is_dir():
            values[key] = os.path.abspath(path.parent / values[key])
    reproduction = values.get("reproduce")
    lender = reproduction.get("autoencoder_of") if isinstance(reproduction, dict) else None
    if isinstance(lender, str) and lender and (path.parent / lender).is_dir():
        reproduction["autoencoder_of"] = os.path.abspath(path.parent / lender)
    denoiser = values.get("denoiser")
    curriculum = denoiser.get("curriculum") if isinstance(denoiser, dict) else None
    if isinstance(curriculum, dict) and isinstance(curriculum.get("levels"), str) and curriculum["levels"]:
        curriculum["levels"] = os.path.abspath(path.parent / os.path.expanduser(curriculum["levels"]))
    return build(Recipe, values, str(path))


def keep_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe into the run folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        aside = folder / "recipe.toml.partial"
        aside.write_text(to_toml(recipe), encoding="utf-8")
        os.replace(aside, folder / "recipe.toml")
    except OSError as error:
        raise OutputError(f"{folder}: cannot write the run folder ({error}); choose another with --out") from None
