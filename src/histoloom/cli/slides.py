"""`histoloom patches` and `histoloom overlay`: from slides and annotations to a patch dataset, and a look at it."""

from pathlib import Path
from typing import Annotated

import typer

SlideMpp = Annotated[
    float | None, typer.Option(help="Micrometres per level-0 pixel, for slides that do not say it themselves.")
]
Rest = Annotated[str, typer.Option(help="Tissue type of all that is not annotated. Default: unlabelled.")]
Ignore = Annotated[
    list[str] | None, typer.Option(help="Class or label value in the annotations to leave out; repeatable.")
]
Order = Annotated[
    list[str] | None, typer.Option(help="Tissue types that win where annotations overlap, last wins; repeatable.")
]
SKIPPED = 3  # exit code of a run that had to leave out slides


def patches(
    slides: Annotated[Path, typer.Argument(help="A slide, or a folder of slides in any format.")],
    tissue: Annotated[Path, typer.Option(help="tissue.toml: ids, names, colours, and aliases for names in files.")],
    out: Annotated[Path, typer.Option(help="Folder of the new dataset; written aside, then renamed.")],
    annotations: Annotated[
        Path | None,
        typer.Option(help="Folder of QuPath GeoJSON, ASAP XML or label rasters, named as the slides."),
    ] = None,
    mpp: Annotated[float, typer.Option(help="Micrometres per pixel of the patches.")] = 0.5,
    size: Annotated[int, typer.Option(help="Patch edge in pixels.")] = 256,
    stride: Annotated[int | None, typer.Option(help="Pixels between candidates. Default: the edge.")] = None,
    low: Annotated[float, typer.Option(help="Least share of the most common type.")] = 0.2,
    high: Annotated[float, typer.Option(help="Largest share of the most common type; 1 takes pure patches too.")] = 0.8,
    min_tissue: Annotated[float, typer.Option(help="Least share of tissue, against glass.")] = 0.5,
    min_labelled: Annotated[float, typer.Option(help="Least share of labelled pixels.")] = 0.5,
    min_focus: Annotated[float, typer.Option(help="Least sharpness; 0 takes blurred patches too.")] = 0.02,
    per_slide: Annotated[int, typer.Option(help="Most patches of one slide.")] = 1000,
    per_type: Annotated[int, typer.Option(help="Most patches of one slide with the same most common type.")] = 1000,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Write pixels too; without, they are read from the slides when needed.")
    ] = False,
    rest: Rest = "",
    ignore: Ignore = None,
    order: Order = None,
    unannotated: Annotated[
        bool, typer.Option("--unannotated", help="Take slides without annotation too, all of them of the type --rest.")
    ] = False,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="File names of slides to leave out, as in 'tumor_01?.tif'; repeatable.")
    ] = None,
    listing: Annotated[Path | None, typer.Option("--list", help="CSV file whose rows name the slides to take.")] = None,
    list_column: Annotated[str, typer.Option(help="Its column of slide names.")] = "image_id",
    list_case: Annotated[str, typer.Option(help="Its column of cases. Default: --case-pattern.")] = "",
    list_where: Annotated[
        list[str] | None, typer.Option(help="Only its rows with this value, as in data_provider=radboud; repeatable.")
    ] = None,
    slide_mpp: SlideMpp = None,
    case_pattern: Annotated[
        str | None, typer.Option(help="Regular expression whose group is the case, as in '^(TCGA-..-....)'.")
    ] = None,
    val_share: Annotated[float, typer.Option(help="Share of slides to validate on, drawn by case.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Seed of grid, order and split.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; the result is the same whatever their number.")] = 1,
    ray: Annotated[
        str, typer.Option(help="Address of a Ray cluster to run on: auto, ray://host:10001, or local.")
    ] = "",
    license_name: Annotated[
        str, typer.Option("--license", help="Licence for the card, such as cc-by-4.0.")
    ] = "unknown",
) -> None:
    """Cut patches that show more than one tissue from annotated slides.

    The dataset holds a picture of every slide with what was taken of it. Broken slides are named and skipped, and the
    exit code is then 3. A killed run goes on when repeated; the same command again does nothing.
    """
    from histoloom.cli.progress import bar
    from histoloom.distributed import Workers
    from histoloom.patches.card import type_table
    from histoloom.patches.from_slides import OVERLAYS, extract_slides, made_from
    from histoloom.patches.rules import PatchRules, SlideDataset, SlideList
    from histoloom.patches.slide_jobs import find_jobs
    from histoloom.slides.labelling import AnnotationConfig
    from histoloom.tissue import TissueTable

    rules = PatchRules(
        mpp, size, stride or size, low, high, min_tissue, min_labelled, min_focus, per_slide, per_type, seed
    )  # fmt: skip
    reading = AnnotationConfig(order=tuple(order or ()), ignore=tuple(ignore or ()), rest=rest)
    listed = SlideList(list_column, list_case, tuple(list_where or ()))
    config = SlideDataset(
        rules, reading, listed, slide_mpp, pixels, unannotated, tuple(leave_out or ()), case_pattern, val_share
    )  # fmt: skip
    table = TissueTable.load(tissue)
    jobs, notes = find_jobs(slides, annotations, config, listing)
    result = made_from(out, jobs, table, config)
    told = f"{out} is up to date: made from the same files with the same settings"
    if result is None:
        with bar("slides", len(jobs), "slides") as running:
            result = extract_slides(
                jobs, notes, table, config, out, Workers(workers, ray), license_name, running.advance
            )
        told = f"wrote {out}; its README.md describes it, {OVERLAYS}/ shows what was taken of each slide"
    for line in (*notes, *(f"skipped: {failure}" for failure in result.failures)):
        typer.echo(line, err=True)
    for summary in result.summaries:
        typer.echo(f"{summary.name}: {summary.patches:,} patches of {summary.cases:,} cases")
    typer.echo(type_table(result.summaries, table))
    typer.echo(told)
    if result.failures:
        typer.echo(f"{len(result.failures)} of {len(jobs)} slides were skipped", err=True)
        raise typer.Exit(SKIPPED)


def overlay(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    out: Annotated[Path, typer.Option(help="Picture to write (PNG or JPEG).")],
    annotation: Annotated[Path | None, typer.Option(help="Its GeoJSON, XML or label raster.")] = None,
    tissue: Annotated[Path | None, typer.Option(help="tissue.toml; needed with an annotation.")] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset whose patches of this slide are drawn, and its annotation.")
    ] = None,
    rest: Rest = "",
    ignore: Ignore = None,
    order: Order = None,
    slide_mpp: SlideMpp = None,
    edge: Annotated[int, typer.Option(help="Longer side of the picture in pixels.")] = 1600,
) -> None:
    """Draw tissue, annotation and chosen patches on a thumbnail of a slide.

    Annotated areas are tinted in the colours of tissue.toml, the rim of the tissue is green, patches are dark squares.
    """
    from PIL import Image

    from histoloom.errors import ConfigError, OutputError
    from histoloom.patches.from_slides import annotation_of
    from histoloom.patches.places import PlaceReader
    from histoloom.slides.labelling import AnnotationConfig
    from histoloom.slides.overlay import draw_overlay
    from histoloom.slides.reader import open_slide
    from histoloom.slides.tissue import find_tissue
    from histoloom.tissue import TissueTable

    if annotation is not None and tissue is None:
        raise ConfigError("an annotation needs a tissue table for its colours; give --tissue")
    table = TissueTable.load(tissue) if tissue is not None else None
    reader = PlaceReader(dataset) if dataset is not None else None
    source = reader.source_of(slide) if reader is not None else None
    slide_mpp = slide_mpp if reader is None or slide_mpp is not None else reader.config.slide_mpp
    with open_slide(slide, slide_mpp) as opened:
        drawn = None
        if annotation is not None:
            reading = AnnotationConfig(order=tuple(order or ()), ignore=tuple(ignore or ()), rest=rest)
            drawn = annotation_of(annotation, opened, table, reading)
        elif reader is not None:
            drawn, table = reader.annotation(source), reader.table
        for note in drawn.notes if drawn is not None else ():
            typer.echo(note, err=True)
        places = reader.places(source) if reader is not None else []
        picture = draw_overlay(opened, find_tissue(opened), drawn, table, places, edge)
    try:
        Image.fromarray(picture).save(out)
    except (OSError, ValueError) as error:
        raise OutputError(f"{out}: cannot be written ({error}); give a .png in a folder that exists") from None
    typer.echo(f"wrote {out}: {len(places)} patches" if reader is not None else f"wrote {out}")
