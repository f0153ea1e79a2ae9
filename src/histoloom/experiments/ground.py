"""What every step of a reproduction stands on, and how a step that is done is not done again."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from histoloom.discovery.levels import Levels
from histoloom.errors import OutputError
from histoloom.experiments.recipe import Recipe, Reproduction
from histoloom.experiments.stages import MakeBar
from histoloom.fitting.processes import process_state
from histoloom.patches.store import Patches
from histoloom.tissue import TissueTable

HELD = "val"  # the split that everything is measured against


@dataclass(frozen=True)
class Ground:
    """What every step of a run stands on."""

    recipe: Recipe
    folder: Path
    table: TissueTable
    train: Patches
    held: Patches
    levels: Levels | None  # how the types are nested, for a recipe with a curriculum
    make_bar: MakeBar

    @property
    def budget(self) -> Reproduction:
        """What the recipe says of the comparison."""
        return self.recipe.reproduce

    def key(self, *more: object) -> str:
        """A hash of the data and of what else decides a step."""
        told = json.dumps([self.train.fingerprint(), self.held.fingerprint(), *more], default=str)
        return hashlib.sha256(told.encode()).hexdigest()


def kept(path: Path, key: str, make: Callable[[], dict]) -> dict:
    """The result in `path`, where an earlier run with the same `key` has left one; else it is made and written."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["key"] == key:
            return found["result"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    result = plain(make())
    if process_state().is_main_process:
        write_text(path, json.dumps({"key": key, "result": result}) + "\n")
    return result


def plain(value: object) -> object:
    """As JSON has it: nan becomes null, a tuple a list."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def write_text(path: Path, text: str) -> None:
    """Write a file aside and rename it; raises OutputError."""
    aside = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error}); free some space") from None
