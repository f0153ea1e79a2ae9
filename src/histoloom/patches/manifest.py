"""The manifest of one's own pictures: a CSV file that names images and maps by paths relative to one folder."""

import os
from pathlib import Path

from histoloom.errors import InputError
from histoloom.patches.table_files import column_named, read_csv
from histoloom.text import canonical, shorten

USUAL = ("image", "map", "split", "case_id")


def manifest_rows(manifest: Path, root: Path, *named: str) -> dict[int, dict[str, str]]:
    """Rows by the line they end on, their image paths relative and in one spelling.

    The columns of `USUAL` are found however the header spells them, and so are those `named`, which must be there.
    Raises InputError naming file, line and cure.
    """
    if not manifest.is_file():
        raise InputError(f"{manifest}: neither a folder of images nor a readable manifest.csv (no such file)")
    columns, rows = read_csv(manifest, "images")
    if missing := [name for name in ("image", "map") if name not in map(canonical, columns)]:
        raise InputError(f"{manifest}: lacks the column {missing[0]!r}; a manifest has at least the columns image, map")
    here = {canonical(column) for column in columns}
    wanted = (*named, *(name for name in USUAL if name in here))
    spelled = {name: column_named(name, columns, manifest) for name in wanted}
    rows = {line: row | {name: row[column] for name, column in spelled.items()} for line, row in rows.items()}
    if not rows:
        raise InputError(f"{manifest}: has no rows below its header; list an image and its map on each")
    seen: dict[str, int] = {}
    for line, row in rows.items():
        where = f"{manifest} line {line}"
        if not row["image"] or not row["map"]:
            raise InputError(f"{where}: image or map is empty; name both, relative to {root}")
        for column in ("image", "map"):
            if "\0" in row[column] or Path(row[column]).is_absolute():
                raise InputError(
                    f"{where}: {shorten(row[column])} is not a relative path (absolute paths are refused); write it "
                    f"relative to {root}"
                )
        row["image"] = Path(os.path.normpath(row["image"])).as_posix()
        if (other := seen.setdefault(row["image"], line)) != line:
            raise InputError(f"{where}: {shorten(row['image'])} is on line {other} already; keep one of the two rows")
    return rows
