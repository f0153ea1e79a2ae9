"""`histoloom import`: one's own pictures and maps become a patch dataset."""

from pathlib import Path
from typing import Annotated

import typer


def import_folder(
    source: Annotated[Path, typer.Argument(help="Folder of images, or a manifest.csv with the columns image and map.")],
    tissue: Annotated[Path, typer.Option(help="tissue.toml: ids, names, colours, and aliases for foreign values.")],
    out: Annotated[Path, typer.Option(help="Folder of the new dataset; written aside, then renamed.")],
    maps: Annotated[
        Path | None, typer.Option(help="Folder of the maps, named as their images. Not for a manifest.")
    ] = None,
    map_suffix: Annotated[str, typer.Option(help="What map names add to image names, such as _mask.")] = "",
    trim: Annotated[int, typer.Option(help="Pixels to cut from every edge.")] = 0,
    size: Annotated[
        int | None, typer.Option(help="Patch edge in pixels; larger images become several patches.")
    ] = None,
    case_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression on file names; its one group is the case, as in '^(P[0-9]+)_'."),
    ] = None,
    case_column: Annotated[str, typer.Option(help="Column of the manifest that names the case.")] = "case_id",
    val_share: Annotated[
        float | None,
        typer.Option(help="Share of patches to validate on, drawn by case. Default: split column, else 0.15."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    mpp: Annotated[float | None, typer.Option(help="Micrometres per pixel, where known.")] = None,
    unlabelled: Annotated[
        list[str] | None,
        typer.Option(help="Map value (0) or colour (#000000) that means no label, beside 255; repeatable."),
    ] = None,
    license_name: Annotated[
        str, typer.Option("--license", help="Licence for the card, such as cc-by-4.0.")
    ] = "unknown",
) -> None:
    """Import your own images and label maps as a patch dataset.

    Images and maps may be PNG, TIFF, JPEG or WebP; what map values and colours mean stands in tissue.toml. Patients
    (cases) are never split over training and validation. The same command again does nothing.
    """
    from histoloom.cli.progress import bar
    from histoloom.patches.folder import FolderImport, find_pictures
    from histoloom.patches.importer import import_pictures, is_made_from
    from histoloom.tissue import TissueTable

    config = FolderImport(
        trim, size, case_column, case_pattern, map_suffix, val_share, seed, mpp, tuple(unlabelled or ())
    )  # fmt: skip
    table = TissueTable.load(tissue)
    pictures = find_pictures(source, maps, config)
    if is_made_from(out, pictures, table, config):
        typer.echo(f"{out} is up to date: made from the same files with the same settings")
        return
    with bar("importing", len(pictures), "images") as running:
        record = import_pictures(pictures, table, config, out, license_name, running.advance)
    for split, count in record["counts"].items():
        typer.echo(f"{split}: {count['patches']} patches of {count['cases']} cases")
    for note in record["notes"]:
        typer.echo(note)
    typer.echo(f"wrote {out}; its README.md describes it")
