"""The folder of a reader study, and the reading of it.

    STUDY/
      study.json         settings, and for each reader the items in order: all that the server reads
      images/ID.png      what readers see, uncompressed: all files have one size; ID-left.png and ID-right.png of pairs
      key/key.json       what each item is, and where it comes from; never served: keep it elsewhere if you like
      record.json        what decides the study
      answers.sqlite     tokens (as hashes) and answers; made by `histoloom study serve`

Images of one study share a size.
"""

from dataclasses import dataclass
from pathlib import Path

from histoloom.errors import InputError
from histoloom.records import read_json

STUDY, IMAGES, KEY, ANSWERS = "study.json", "images", Path("key") / "key.json", "answers.sqlite"
FORMAT = 1  # of study.json and key.json
SIDES = ("left", "right")


@dataclass(frozen=True)
class Study:
    """What the server knows of a study; nothing in it says what an item is."""

    folder: Path
    is_pairs: bool
    width: int  # px
    height: int
    practice: frozenset[str]  # items that do not count
    orders: dict[str, list[str]]  # reader: items

    def images(self, item: str) -> list[str]:
        """The names of the images of an item, left to right."""
        return image_names(item, self.is_pairs)


def image_names(item: str, is_pairs: bool) -> list[str]:
    """The names of the images of an item, left to right."""
    return [f"{item}-{side}.png" for side in SIDES] if is_pairs else [f"{item}.png"]


def open_study(folder: Path) -> Study:
    """A study without its key; raises InputError naming what is missing or damaged."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; make a study with `histoloom study create`")
    if not (folder / STUDY).is_file():
        raise InputError(f"{folder}: not a reader study (no {STUDY}); make one with `histoloom study create`")
    found = _checked(folder / STUDY)
    try:
        orders = {str(reader): [str(item) for item in order] for reader, order in found["orders"].items()}
        width, height = (int(edge) for edge in found["size"])
        study = Study(folder, bool(found["pairs"]), width, height, frozenset(found["practice"]), orders)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(f"{folder / STUDY}: is damaged; make the study again") from None
    items = {item for order in orders.values() for item in order}
    if not items or not all(item.isalnum() for item in items):
        raise InputError(f"{folder / STUDY}: holds no items, or items without a plain name; make the study again")
    missing = [name for item in sorted(items) for name in study.images(item) if not (folder / IMAGES / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{folder / IMAGES / missing[0]}: is missing{more}; copy the whole folder, or make it again")
    return study


def read_key(folder: Path, key: Path | None = None) -> dict:
    """The key of a study, from another place if `key` names one; raises InputError."""
    path = key or Path(folder) / KEY
    if not path.is_file():
        raise InputError(f"{path}: is missing; name the key of the study with --key")
    found = _checked(path)
    if not {"items", "margin"} <= found.keys():
        raise InputError(f"{path}: is not the key of a study")
    return found


def _checked(path: Path) -> dict:
    found = read_json(path, dict)
    if found.get("format") != FORMAT:
        raise InputError(f"{path}: has format {found.get('format')!r}, and this version reads {FORMAT}")
    return found
