"""`histoloom import` and `histoloom lumens`: a patch dataset from images and maps, and one with lumens outlined."""

from pathlib import Path
from typing import Annotated

import typer

from histoloom.cli.notes import echo_notes
from histoloom.files import check_out
from histoloom.license import UNKNOWN, License

LicenseName = Annotated[str, typer.Option("--license", help="License for the card, such as cc-by-4.0.")]
Attribution = Annotated[str, typer.Option(help="Whom to name; models and patches made from the dataset pass it on.")]


def import_folder(
    source: Annotated[Path, typer.Argument(help="Folder of images, or a manifest.csv with the columns image and map.")],
    tissue: Annotated[
        Path,
        typer.Option(help="tissue.toml: ids, names, colors, and aliases for foreign values; '>0' is every instance."),
    ],
    out: Annotated[Path, typer.Option(help="Folder of the new dataset.")],
    maps: Annotated[
        Path | None, typer.Option(help="Folder of maps with the names of the images; not with a manifest.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder of the files that a manifest names. Default: the folder of the manifest."),
    ] = None,
    map_suffix: Annotated[str, typer.Option(help="Suffix that map names add to image names, such as _mask.")] = "",
    trim: Annotated[int, typer.Option(help="Pixels to cut from every edge.")] = 0,
    size: Annotated[
        int | None, typer.Option(help="Patch edge in pixels; larger images become several patches.")
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(help="Pixels from one patch to the next; less than the size: overlap. Default: the size."),
    ] = None,
    case_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression on file names; its one group is the case, as in '^(P[0-9]+)_'."),
    ] = None,
    case_column: Annotated[str, typer.Option(help="Column of the manifest that names the case.")] = "case_id",
    val_share: Annotated[
        float | None,
        typer.Option(help="Share of patches for validation, drawn by case. Default: split column, else 0.15."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    mpp: Annotated[float | None, typer.Option(help="Micrometers per pixel of the images, if known.")] = None,
    to_mpp: Annotated[
        float | None,
        typer.Option(help="Micrometers per pixel of the patches: images and maps are resampled. Needs --mpp."),
    ] = None,
    unlabelled: Annotated[
        list[str] | None,
        typer.Option(help="Map value (0) or color (#000000) that means no label, in addition to 255; repeatable."),
    ] = None,
    license_name: LicenseName = UNKNOWN.name,
    attribution: Attribution = UNKNOWN.attribution,
) -> None:
    """Import your own images and label maps as a patch dataset.

    Images may be PNG, TIFF, JPEG, JPEG 2000, WebP or BMP; maps need a lossless one of these formats. tissue.toml says
    what map values and colors mean. All patches of a case (patient) are in the same split. On a finished dataset, the
    same command does nothing.
    """
    check_out(out)

    from histoloom.cli.progress import bar
    from histoloom.patches.card import summarize, type_table
    from histoloom.patches.dataset import check_license, read_description
    from histoloom.patches.folder import FolderImport, find_pictures
    from histoloom.patches.importer import import_pictures, is_made_from
    from histoloom.tissue import TissueTable

    config = FolderImport(
        trim=trim,
        size=size,
        stride=stride,
        case_column=case_column,
        case_pattern=case_pattern,
        map_suffix=map_suffix,
        val_share=val_share,
        seed=seed,
        mpp=mpp,
        to_mpp=to_mpp,
        unlabelled=tuple(unlabelled or ()),
    )
    table = TissueTable.load(tissue)
    license, notes = License(license_name, attribution), list[str]()
    pictures = find_pictures(source, maps, config, root, notes)
    if is_made_from(out, pictures, table, config):
        description = read_description(out) or {"counts": {}, "notes": []}
        check_license(description, license, out)
        end = f"{out} is up to date: it was made from the same files with the same settings"
    else:
        with bar("importing", len(pictures), "images") as running:
            description = import_pictures(pictures, table, config, out, license, running, notes)
        end = f"wrote {out}; its README.md describes it"
    for split, count in description["counts"].items():
        typer.echo(f"{split}: {count['patches']} patches of {count['cases']} cases")
    typer.echo(type_table(summarize(out), table))
    echo_notes(description["notes"])
    typer.echo(end)


def lumens(
    dataset: Annotated[Path, typer.Argument(help="Patch dataset with pixels; it stays as it is.")],
    out: Annotated[Path, typer.Option(help="Folder of the new dataset.")],
    name: Annotated[
        str, typer.Option(help="Tissue type that bright areas become; one that the dataset has is extended.")
    ] = "lumen or glass",
    color: Annotated[str, typer.Option(help="Color of a new type.")] = "#d0d0d0",
    brightness: Annotated[
        float, typer.Option(help="Least brightness of such an area, as a share of the brightest of its case.")
    ] = 0.8,
    contrast: Annotated[
        float, typer.Option(help="Least gray levels between the tissue of a patch and the brightest of its case.")
    ] = 45.0,
) -> None:
    """Outline lumens and glass in the maps of a dataset.

    Maps that count the lumen as gland leave its place to the model, and a small model draws none. This writes the
    dataset again with bright areas as a tissue type of their own. Look at lumens.jpg in the new folder before you train
    on it, and name the type as `hidden` in `[denoiser]`. On a finished dataset, the same command does nothing.
    """
    check_out(out)

    from histoloom.cli.progress import bar
    from histoloom.patches.bright import LumenRules
    from histoloom.patches.card import summarize, type_table
    from histoloom.patches.dataset import finished_dataset
    from histoloom.patches.lumens import PICTURE, add_lumens, lumen_record
    from histoloom.patches.store import count_patches, read_table, splits

    rules = LumenRules(name=name, color=color, brightness=brightness, contrast=contrast)
    read_table(dataset)
    description = finished_dataset(out, lumen_record(dataset, rules))
    end = f"{out} is up to date: it was made from the same dataset with the same settings"
    if description is None:
        total = 2 * sum(count_patches(dataset, split) for split in splits(dataset))
        with bar("finding lumens", total, "patches") as running:
            description = add_lumens(dataset, out, rules, running)
        end = f"wrote {out}; look at {out / PICTURE}"
    typer.echo(type_table(summarize(out), read_table(out)))
    echo_notes(description["notes"])
    typer.echo(end)
