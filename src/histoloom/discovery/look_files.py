"""Write the look of discovered types.

    LOOK/
      record.json        settings, names, and fingerprints of types and maps
      look.html          everything on one page
      tree.png           the tree of types
      types/017.png      a contact sheet of each type
      shares.csv         share of each of the finest types in every slide, with maps
      discovered.toml    a draft of names to edit, where no names are given

Each run draws all of it again, but for the draft, which may be edited.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from histoloom.discovery.cluster import ASSIGNMENTS
from histoloom.discovery.draw import SHARE_COLUMNS, SHARES
from histoloom.discovery.look import LookConfig, tree_picture, type_sheets, write_shares
from histoloom.discovery.look_page import MAX_SLIDES, Shares, look_page
from histoloom.discovery.names import NamedTypes, draft_names
from histoloom.discovery.tree import TABLE
from histoloom.discovery.windows import open_windows, read_assigned
from histoloom.errors import InputError
from histoloom.files import check_out, remove_partials, replaced_folder, write_record, write_text
from histoloom.locks import locked
from histoloom.parquet import read_batches
from histoloom.pictures import write_picture
from histoloom.progress import SILENT, Bar
from histoloom.records import Record, fingerprint

COMMAND, FORMAT = "discover look", 1
DRAFT = "discovered.toml"
FEW_TYPES = 20  # levels with more types are in the files, not on the page


def write_look(
    discovered: Path,
    named: NamedTypes,
    config: LookConfig,
    maps: Path | None,
    out: Path,
    draft: bool,
    bar: Bar = SILENT,
) -> Path | None:
    """Write the look of the types in `discovered` into `out`, in place of an older one, and return the path of the
    draft of names, if any.

    A draft that exists is kept, since it may be edited. Raises InputError where `maps` holds no maps; OutputError,
    before any work, for a folder that cannot be written.
    """
    check_out(out, in_place=True)
    record = _record(discovered, named, config, maps)
    assigned, (read, _) = read_assigned(discovered), open_windows(discovered)
    with locked(out), replaced_folder(out / "types") as pictures:
        remove_partials(out)
        write_record(out, record)
        sheets = type_sheets(assigned, named, read, config, bar)
        sizes = np.bincount(assigned.types, minlength=named.levels.of.shape[1])
        tree = tree_picture(named, sizes)
        tables, overlays = ([], {}) if maps is None else (_shares(named, maps), _overlays(named, maps))
        page = look_page(out.absolute().parent.name, named, sheets, tree, overlays, tables[:-1] or tables)
        for sheet in sheets:
            write_picture(pictures / f"{sheet.id:03d}.png", Image.fromarray(sheet.sheet))
        write_picture(out / "tree.png", Image.fromarray(tree))
        (out / "shares.csv").unlink(missing_ok=True)  # of an older look
        if tables:
            table, slides, shares = tables[-1]
            write_shares(out / "shares.csv", slides, shares, table)
        write_text(out / "look.html", page)
        if draft and not (out / DRAFT).exists():
            write_text(out / DRAFT, draft_names(named))
    return out / DRAFT if draft else None


def _record(discovered: Path, named: NamedTypes, config: LookConfig, maps: Path | None) -> Record:
    """How a look was made. It is drawn again each time, so nothing is compared with the record."""
    inputs = {name: fingerprint(discovered / name) for name in (TABLE, ASSIGNMENTS)}
    inputs |= {} if maps is None else {SHARES: _shares_mark(maps)}
    settings = asdict(config) | {"levels": list(named.levels.counts), "tissue": named.finest.to_rows()}
    return Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs)


def _shares(named: NamedTypes, maps: Path) -> list[Shares]:
    """Tables of slides by types: levels of few types first, the finest level last."""
    places: dict[str, int] = {}  # of slides, in order
    for batch in read_batches(
        maps / SHARES, 4096, ["slide"], dict(zip(SHARE_COLUMNS.names, SHARE_COLUMNS.types, strict=True))
    ):
        for slide in batch["slide"].unique().to_pylist():
            places.setdefault(slide, len(places))
    tables: dict[int, Shares] = {}
    for count, table in zip(named.levels.counts, named.tables, strict=True):
        if len(table.types) <= FEW_TYPES or count == named.levels.counts[-1]:
            tables[count] = (table, list(places), np.zeros((len(places), table.num_ids)))
    names = {count: {t.id: t.name for t in table.types} for count, (table, _, _) in tables.items()}
    for batch in read_batches(maps / SHARES, 4096, ["slide", "level", "id", "name", "share"]):
        for slide, count, tissue, name, share in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            if count not in tables:
                continue
            if names[count].get(tissue) != name:
                raise InputError(f"{maps}: was drawn with other names; run `histoloom discover maps` with these")
            tables[count][2][places[slide], tissue] = share
    return list(tables.values())


def _shares_mark(maps: Path) -> str:
    if not (maps / SHARES).is_file():
        raise InputError(f"{maps}: has no {SHARES}; draw maps of slides with `histoloom discover maps`")
    return fingerprint(maps / SHARES)


def _overlays(named: NamedTypes, maps: Path) -> dict[str, list[tuple[str, bytes]]]:
    """The overlays of each slide at the coarsest, a middle and the finest level that was drawn.

    Pictures are read for as many slides as the page shows; of the others, only the names.
    """
    drawn = [count for count in named.levels.counts if (maps / str(count) / "overlays").is_dir()]
    shown = list(dict.fromkeys((drawn[0], drawn[len(drawn) // 2], drawn[-1]))) if drawn else []
    found: dict[str, list[tuple[str, bytes]]] = {}
    for count in shown:
        home = maps / str(count) / "overlays"
        for path in sorted(home.rglob("*.jpg")):
            name = path.relative_to(home).with_suffix("").as_posix()
            pictures = found.setdefault(name, [])
            if len(found) <= MAX_SLIDES or pictures:
                pictures.append((f"{count} types", path.read_bytes()))
    return found
