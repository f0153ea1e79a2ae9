"""`histoloom patches` and `histoloom overlay`: from slides and annotations to a patch dataset, and a look at it."""

from pathlib import Path
from typing import Annotated

import typer

SlideMpp = Annotated[
    float | None, typer.Option(help="Micrometres per level-0 pixel, for slides that do not say it themselves.")
]
Tissue = Annotated[Path, typer.Option(help="tissue.toml: ids, names, colours, and aliases for names in annotations.")]


def patches(
    slides: Annotated[Path, typer.Argument(help="A slide, or a folder of slides in any format.")],
    annotations: Annotated[
        Path, typer.Option(help="Folder of QuPath GeoJSON, ASAP XML or label rasters, named as the slides.")
    ],
    tissue: Tissue,
    out: Annotated[Path, typer.Option(help="Folder of the new dataset; written aside, then renamed.")],
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
    pixels: Annotated[bool, typer.Option("--pixels", help="Write pixels too, for fast training.")] = False,
    rest: Annotated[str, typer.Option(help="Tissue type of all that is not annotated. Default: unlabelled.")] = "",
    ignore: Annotated[list[str] | None, typer.Option(help="Annotation class to leave out; repeatable.")] = None,
    order: Annotated[
        list[str] | None, typer.Option(help="Tissue types that win where annotations overlap, last wins; repeatable.")
    ] = None,
    slide_mpp: SlideMpp = None,
    case_pattern: Annotated[
        str | None, typer.Option(help="Regular expression whose group is the case, as in '^(TCGA-..-....)'.")
    ] = None,
    val_share: Annotated[float, typer.Option(help="Share of slides to validate on, drawn by case.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Seed of grid, order and split.")] = 0,
    workers: Annotated[int, typer.Option(help="Processes; the result is the same whatever their number.")] = 1,
    license_name: Annotated[
        str, typer.Option("--license", help="Licence for the card, such as cc-by-4.0.")
    ] = "unknown",
) -> None:
    """Cut patches that show more than one tissue from annotated slides.

    Broken slides are named and skipped, and the exit code is then 3. A killed run resumes when repeated.
    """
    from histoloom.cli.progress import bar
    from histoloom.patches.extract import PatchRules
    from histoloom.patches.from_slides import SlideDataset, extract_slides, find_jobs
    from histoloom.slides.annotations import AnnotationConfig
    from histoloom.tissue import TissueTable

    rules = PatchRules(
        mpp, size, stride or size, low, high, min_tissue, min_labelled, min_focus, per_slide, per_type, seed
    )  # fmt: skip
    reading = AnnotationConfig(order=tuple(order or ()), ignore=tuple(ignore or ()), rest=rest)
    config = SlideDataset(rules, reading, slide_mpp, pixels, case_pattern, val_share)
    jobs, notes = find_jobs(slides, annotations, config)
    with bar("slides", len(jobs), "slides") as running:
        table = TissueTable.load(tissue)
        result = extract_slides(jobs, notes, table, config, out, workers, license_name, running.advance)
    for line in (*notes, *(f"skipped: {failure}" for failure in result.failures)):
        typer.echo(line, err=True)
    for split, count in result.record["counts"].items():
        typer.echo(f"{split}: {count['patches']} patches of {count['cases']} cases")
    typer.echo(f"wrote {out}; its README.md describes it")
    if result.failures:
        typer.echo(f"{len(result.failures)} of {len(jobs)} slides were skipped", err=True)
        raise typer.Exit(3)


def overlay(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    out: Annotated[Path, typer.Option(help="Picture to write (PNG or JPEG).")],
    annotation: Annotated[Path | None, typer.Option(help="Its GeoJSON, XML or label raster.")] = None,
    tissue: Annotated[Path | None, typer.Option(help="tissue.toml; needed with an annotation.")] = None,
    dataset: Annotated[Path | None, typer.Option(help="Dataset whose patches of this slide are drawn.")] = None,
    slide_mpp: SlideMpp = None,
) -> None:
    """Draw tissue, annotation and chosen patches on a thumbnail of a slide."""
    from PIL import Image

    from histoloom.errors import ConfigError, OutputError
    from histoloom.patches.from_slides import annotation_of
    from histoloom.patches.store import iter_rows, splits
    from histoloom.slides.annotations import AnnotationConfig
    from histoloom.slides.overlay import draw_overlay
    from histoloom.slides.reader import open_slide
    from histoloom.slides.tissue import find_tissue
    from histoloom.tissue import TissueTable

    if annotation is not None and tissue is None:
        raise ConfigError("an annotation needs a tissue table for its colours; give --tissue")
    table = TissueTable.load(tissue) if tissue is not None else None
    places = []
    for split in splits(dataset) if dataset is not None else ():
        rows = iter_rows(dataset, split, ["source", "x", "y", "size"])
        places += [(row["x"], row["y"], row["size"]) for row in rows if Path(row["source"]).name == slide.name]
    with open_slide(slide, slide_mpp) as opened:
        drawn = annotation_of(annotation, opened, table, AnnotationConfig()) if annotation is not None else None
        picture = draw_overlay(opened, find_tissue(opened), drawn, table, places)
    try:
        Image.fromarray(picture).save(out)
    except (OSError, ValueError) as error:
        raise OutputError(f"{out}: cannot be written ({error}); give a .png in a folder that exists") from None
    typer.echo(f"wrote {out}")
