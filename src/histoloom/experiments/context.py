"""What every stage of a run needs: the recipe, where it writes, its data, and who watches."""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from histoloom.discovery.levels import Levels
from histoloom.experiments.curves import Curves
from histoloom.experiments.recipe import Recipe
from histoloom.patches.store import Patches
from histoloom.progress import Progress
from histoloom.records import Record
from histoloom.tissue import TissueTable

FORMAT = 1  # raise it when the same recipe trains other bytes
_MEASURING = ("encoders", "pairs", "segmenter", "downstream", "shown")  # of [reproduce]
_PATHS = ("dataset", "source", "maps", "tissue", "root", "slides", "annotations", "listing")
_CARD = ("license", "attribution")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a recipe. `curves` is None in all processes but the main one."""

    recipe: Recipe
    folder: Path
    table: TissueTable
    patches: Patches  # of the training split
    levels: Levels | None  # how the types are nested, for a recipe with a curriculum
    hidden: tuple[int, ...] = ()  # ids of the types that maps may leave out
    progress: Progress
    curves: Curves | None = None

    def key(self, *more: object) -> str:
        """A hash of the training patches and of whatever else decides a result."""
        text = json.dumps([self.patches.fingerprint(), *more], default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def record_of(recipe: Recipe, command: str) -> Record:
    """What must not change between a run of a recipe and its resumption.

    Paths, license, the watcher, how often a run saves and who prepares batches may change. So may the number of steps
    of a constant schedule, since a longer run repeats a shorter one. Stages check the content of their inputs
    themselves.
    """
    settings = asdict(recipe)
    settings.pop("watch")
    compared = settings.pop("reproduce")
    if command == "reproduce":
        # How the woven patches are measured may change: those results are kept by it.
        settings["reproduce"] = {name: value for name, value in compared.items() if name not in _MEASURING}
        settings["reproduce"]["autoencoder_of"] = Path(compared["autoencoder_of"]).name
    for name in (*_PATHS, *_CARD):
        settings["data"].pop(name)
    for name in ("initial_model", "pretrained_autoencoder"):
        settings[name] = Path(settings[name]).name
    if settings["denoiser"]["curriculum"]:
        settings["denoiser"]["curriculum"].pop("levels")
    if guide := settings["denoiser"]["guide"]:
        guide["model"] = Path(guide["model"]).name
    for stage in ("autoencoder", "decoder", "denoiser", "distillation"):
        loop = (settings[stage] or {}).get("loop", {})
        for free in ("checkpoint_minutes", "workers", *(("steps",) if loop.get("schedule") == "constant" else ())):
            loop.pop(free, None)
    return Record(command=command, format=FORMAT, settings=settings)
