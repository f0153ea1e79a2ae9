"""One experiment as a TOML file: data, autoencoder, decoder, denoiser, watcher, and comparison."""

from dataclasses import dataclass, field
from pathlib import Path

from histoloom.conditioning.kinds import Conditioning
from histoloom.conditioning.likeness import CopyLimitConfig
from histoloom.config import build, check_numbers, load_recipe, to_tables, to_toml
from histoloom.errors import ConfigError
from histoloom.evaluation.downstream import DownstreamConfig
from histoloom.evaluation.segmenter import SegmenterConfig
from histoloom.experiments.recipe_paths import relative_paths, resolve_paths
from histoloom.files import write_text
from histoloom.generation.settings import WeaveConfig
from histoloom.license import UNKNOWN, License
from histoloom.models.sampling import Sampling
from histoloom.patches.bright import LumenRules
from histoloom.patches.folder import FolderImport
from histoloom.patches.rules import SlideDataset
from histoloom.training.autoencoder import AutoencoderTraining
from histoloom.training.decoder import DecoderTraining
from histoloom.training.denoiser import DenoiserTraining
from histoloom.training.distillation import Distillation


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """Where patches come from: a patch dataset, pictures and maps to import, or slides to cut.

    Paths are relative to `root`. The tissue table may also be next to the recipe.
    """

    dataset: str = ""  # folder made by `histoloom import` or `histoloom patches`
    source: str = ""  # or: image folder, or manifest.csv
    maps: str = ""  # folder of maps; not for a manifest
    tissue: str = ""  # tissue table of the pictures or slides
    split: str = "train"  # split to train on
    pictures: FolderImport = field(default_factory=FolderImport)
    root: str = ""  # folder of the data, relative to the recipe; `histoloom train --data` overrides it
    slides: str = ""  # or: folder of slides
    annotations: str = ""  # folder of their annotations, if any
    listing: str = ""  # CSV file that names the slides to use, if any
    cut: SlideDataset = field(default_factory=SlideDataset)
    license: str = UNKNOWN.name  # of pictures or slides, such as cc-by-4.0; the card of the model names it
    attribution: str = UNKNOWN.attribution  # whom that card names; a dataset has both in its own card
    lumens: LumenRules | None = None  # outline lumens and glass in these maps first, as `histoloom lumens` does

    def __post_init__(self):
        if [bool(self.dataset), bool(self.source), bool(self.slides)].count(True) != 1:
            raise ConfigError(
                "give exactly one of dataset (a folder of patches), source (pictures to import) and slides"
            )
        if not (self.dataset or self.tissue):
            raise ConfigError("pictures and slides need `tissue`, the table of map values and classes")
        if self.dataset and self.terms != UNKNOWN:
            raise ConfigError("license and attribution are those of the dataset; leave them out of the recipe")
        if self.slides and self.lumens is not None and not self.cut.pixels:
            raise ConfigError("lumens are found in the pixels of patches; set `cut.pixels = true`, or leave lumens out")

    @property
    def terms(self) -> License:
        """Under which license pictures or slides are, and whom to name."""
        return License(self.license, self.attribution)


@dataclass(frozen=True, kw_only=True)
class Watch:
    """What the watcher does at each checkpoint: weave `patches`, and read them with a segmenter."""

    patches: int = 8
    steps: int | None = None  # of the sampler; None: its usual number
    map_fidelity: bool = True  # train a segmenter on the same patches first, and read the woven patches with it
    segmenter: SegmenterConfig = field(default_factory=lambda: SegmenterConfig(steps=400))

    def __post_init__(self):
        check_numbers(self)
        if self.patches < 1 or (self.steps is not None and self.steps < 1):
            raise ConfigError(f"watch needs patches and steps of 1 or more, found {self.patches} and {self.steps}")
        Sampling(steps=self.steps)


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """`histoloom reproduce`: train every conditioning, weave from it, and measure it, all at one equal budget.

    All networks are as in `[denoiser]`, start from random weights, and share one autoencoder.
    """

    conditionings: tuple[Conditioning, ...] = (
        "unconditional",
        "map",
        "embedding",
        "crops-in-place",
        "crops-as-reference",
    )
    autoencoder_of: str = ""  # folder, hub name or bundled name of a model; "": the recipe's autoencoder
    steps: int = 600  # of training per conditioning
    views: int = 4  # augmented views per patch in the shared cache of latents
    patches: int = 237  # woven per conditioning, from maps and crops of the training split
    weave: WeaveConfig = field(default_factory=WeaveConfig)
    encoders: tuple[str, ...] = ("histoloom-small",)
    pairs: int = 100  # images and crops that are searched for copied parts, 100 or more
    segmenter: SegmenterConfig = field(default_factory=lambda: SegmenterConfig(steps=400))  # reads maps off images
    downstream: DownstreamConfig = field(default_factory=lambda: DownstreamConfig(steps=100))
    shown: int = 6  # patches on the contact sheet
    seed: int = 0

    def __post_init__(self):
        check_numbers(self)
        if not self.conditionings or len(set(self.conditionings)) < len(self.conditionings):
            raise ConfigError("name at least one conditioning, each only once")
        if min(self.steps, self.views, self.shown) < 1 or self.patches < 2 or self.pairs < 100 or not self.encoders:
            raise ConfigError("need steps, views, shown >= 1, patches >= 2, pairs >= 100, and at least one encoder")
        if self.weave.seed:
            raise ConfigError("leave seed out of weave: all sets are woven with the seed of [reproduce]")
        if self.weave.copy_limit is not None:
            raise ConfigError("leave copy_limit out of weave: a conditioning that copies must be seen to copy")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One experiment."""

    data: DataSource
    autoencoder: AutoencoderTraining = field(default_factory=AutoencoderTraining)
    decoder: DecoderTraining | None = None  # further training of the autoencoder's decoder
    denoiser: DenoiserTraining = field(default_factory=DenoiserTraining)
    distillation: Distillation | None = None  # for `histoloom distill`: how the student learns from `initial_model`
    watch: Watch = field(default_factory=Watch)
    copy_limit: CopyLimitConfig = field(default_factory=CopyLimitConfig)  # of the finished model
    reproduce: Reproduction = field(default_factory=Reproduction)
    pretrained_autoencoder: str = ""  # folder, hub name or bundled name; "": train an autoencoder
    initial_model: str = ""  # folder, hub name or bundled name of a model to train further


def read_recipe(path: Path | str, root: Path | str | None = None) -> Recipe:
    """Read the recipe in a TOML file and make its paths absolute; raises ConfigError naming table and key.

    `root` is the folder that holds the data, in place of the one that the recipe names.
    """
    path = Path(path)
    values = load_recipe(path)
    resolve_paths(values, path, root)
    return build(Recipe, values, str(path))


def save_recipe(recipe: Recipe, folder: Path) -> None:
    """Write the resolved recipe into the run folder, with paths relative to it; raises OutputError."""
    values = to_tables(recipe)
    relative_paths(values, folder.absolute())
    write_text(folder / "recipe.toml", to_toml(values))
