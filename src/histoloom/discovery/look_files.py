"""The look on disk.

LOOK/
  look.html          all of it, without any other file
  tree.png           the tree of types
  types/017.png      a contact sheet of each type
  shares.csv         part of each of the finest types in every slide, where there are maps
  discovered.toml    names to be edited, where none were given
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from histoloom.discovery.draw import SHARES
from histoloom.discovery.look import LookConfig, tree_picture, type_sheets, write_shares
from histoloom.discovery.look_page import SHOWN, look_page
from histoloom.discovery.names import NamedTypes, draft_names
from histoloom.discovery.windows import Assigned, ReadWindow
from histoloom.errors import InputError, OutputError
from histoloom.parquet import open_parquet

DRAFT = "discovered.toml"
FEW = 20  # types: levels of more are in the files, not on the page


def write_look(
    named: NamedTypes,
    assigned: Assigned,
    read: ReadWindow,
    config: LookConfig,
    maps: Path | None,
    out: Path,
    draft: bool,
    advance: Callable[[], None] = lambda: None,
) -> Path | None:
    """Write the look into `out` and return the path of the draft of names, if there is one; an edited one stays.

    `advance` is called after each type. Raises InputError where `maps` holds none, OutputError for a folder that cannot
    be written.
    """
    sheets = type_sheets(assigned, named, read, config, advance)
    sizes = np.bincount(assigned.types, minlength=named.levels.of.shape[1])
    tree = tree_picture(named, sizes)
    tables, overlays = ([], {}) if maps is None else (_shares(named, maps), _overlays(named, maps))
    page = look_page(str(out.absolute().parent.name), named, sheets, tree, overlays, tables[:-1] or tables)
    try:
        (out / "types").mkdir(parents=True, exist_ok=True)
        Image.fromarray(tree).save(out / "tree.png")
        for sheet in sheets:
            Image.fromarray(sheet.sheet).save(out / "types" / f"{sheet.id:03d}.png")
        if tables:
            table, slides, shares = tables[-1]
            write_shares(out / "shares.csv", slides, shares, table)
        aside = out / "look.html.partial"
        aside.write_text(page, encoding="utf-8")
        os.replace(aside, out / "look.html")
        if draft and not (out / DRAFT).exists():
            (out / DRAFT).write_text(draft_names(named), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written ({error.strerror or error}); name another folder") from None
    return out / DRAFT if draft else None


def _shares(named: NamedTypes, maps: Path) -> list:
    """Tables of slides by types: of the levels of few types, and last of the finest."""
    if not (maps / SHARES).is_file():
        raise InputError(f"{maps}: no {SHARES} there; draw maps of slides with `histoloom discover maps`")
    file = open_parquet(maps / SHARES)
    places: dict[str, int] = {}  # of slides, in order
    for batch in file.iter_batches(columns=["slide"]):
        for slide in batch["slide"].unique().to_pylist():
            places.setdefault(slide, len(places))
    tables = {}
    for count, table in zip(named.levels.counts, named.tables, strict=True):
        if len(table.types) <= FEW or count == named.levels.counts[-1]:
            tables[count] = (table, list(places), np.zeros((len(places), table.num_ids)))
    names = {count: {t.id: t.name for t in table.types} for count, (table, _, _) in tables.items()}
    for batch in file.iter_batches(columns=["slide", "level", "id", "name", "share"]):
        for slide, count, tissue, name, share in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if count not in tables:
                continue
            if names[count].get(tissue) != name:
                raise InputError(f"{maps}: was drawn with other names; run `histoloom discover maps` with these")
            tables[count][2][places[slide], tissue] = share
    return list(tables.values())


def _overlays(named: NamedTypes, maps: Path) -> dict[str, list[tuple[str, bytes]]]:
    """The overlays of each slide, coarsest, a middle one, and finest of the levels that were drawn.

    Pictures are read of as many slides as the page shows; of the others the names alone.
    """
    drawn = [count for count in named.levels.counts if (maps / str(count) / "overlays").is_dir()]
    shown = list(dict.fromkeys((drawn[0], drawn[len(drawn) // 2], drawn[-1]))) if drawn else []
    found: dict[str, list[tuple[str, bytes]]] = {}
    for count in shown:
        home = maps / str(count) / "overlays"
        for path in sorted(home.rglob("*.jpg")):
            name = path.relative_to(home).with_suffix("").as_posix()
            pictures = found.setdefault(name, [])
            if len(found) <= SHOWN or pictures:
                pictures.append((f"{count} types", path.read_bytes()))
    return found
