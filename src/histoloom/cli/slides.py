"""`histoloom patches` and `histoloom overlay`: patches from annotated slides, and a picture of what was taken."""

from pathlib import Path
from typing import Annotated

import typer

from histoloom.cli.patches import Attribution, LicenseName
from histoloom.files import check_out, writable
from histoloom.license import UNKNOWN, License
from histoloom.text import counted

SlideMpp = Annotated[
    float | None, typer.Option(help="Micrometers per level-0 pixel of slides whose files do not say it.")
]
OverruleMpp = Annotated[
    bool, typer.Option("--overrule-mpp", help="Use --slide-mpp for slides whose files say something else, too.")
]
Detections = Annotated[
    bool, typer.Option("--detections", help="Read QuPath's detections, cells and tiles as well as its annotations.")
]
Rest = Annotated[str, typer.Option(help="Tissue type of all that is not annotated. Default: unlabeled.")]
Ignore = Annotated[
    list[str] | None, typer.Option(help="Class or label value in the annotations to leave out; repeatable.")
]
Order = Annotated[
    list[str] | None,
    typer.Option(
        help="Tissue types that win where annotations overlap, the last on top; repeatable. Default: tissue.toml."
    ),
]
SKIPPED = 3  # exit code of a run that had to leave out slides


def patches(
    slides: Annotated[Path, typer.Argument(help="A slide, or a folder of slides in any format.")],
    tissue: Annotated[Path, typer.Option(help="tissue.toml: ids, names, colors, and aliases for names in files.")],
    out: Annotated[Path, typer.Option(help="Folder of the new dataset.")],
    annotations: Annotated[
        Path | None,
        typer.Option(help="Folder of QuPath GeoJSON, ASAP XML or label rasters with the names of the slides."),
    ] = None,
    mpp: Annotated[float, typer.Option(help="Micrometers per pixel of the patches.")] = 0.5,
    size: Annotated[int, typer.Option(help="Patch edge in pixels.")] = 256,
    stride: Annotated[int | None, typer.Option(help="Pixels between candidates. Default: the edge.")] = None,
    low: Annotated[float, typer.Option(help="Minimum share of the most common type.")] = 0.2,
    high: Annotated[float, typer.Option(help="Maximum share of the most common type; 1 takes any.")] = 0.8,
    min_tissue: Annotated[float, typer.Option(help="Minimum share of tissue; the rest is glass.")] = 0.5,
    min_labelled: Annotated[float, typer.Option(help="Minimum share of labeled pixels.")] = 0.5,
    min_focus: Annotated[float, typer.Option(help="Minimum sharpness; 0 also takes blurred patches.")] = 0.02,
    per_slide: Annotated[int, typer.Option(help="Maximum patches per slide.")] = 1000,
    per_type: Annotated[int, typer.Option(help="Maximum patches per slide with the same most common type.")] = 1000,
    pixels: Annotated[
        bool, typer.Option("--pixels", help="Write pixels, too; otherwise they are read from the slides when needed.")
    ] = False,
    rest: Rest = "",
    ignore: Ignore = None,
    order: Order = None,
    unannotated: Annotated[
        bool,
        typer.Option("--unannotated", help="Also take slides without annotation, entirely as type --rest."),
    ] = False,
    leave_out: Annotated[
        list[str] | None, typer.Option(help="File names of slides to leave out, as in 'tumor_01?.tif'; repeatable.")
    ] = None,
    listing: Annotated[Path | None, typer.Option("--list", help="CSV file whose rows name the slides to take.")] = None,
    list_column: Annotated[str, typer.Option(help="Column of --list with the slide names.")] = "image_id",
    list_case: Annotated[str, typer.Option(help="Column of --list with the cases. Default: --case-pattern.")] = "",
    list_mpp: Annotated[
        str, typer.Option(help="Column of --list with micrometers per level-0 pixel; overrides the slide's file.")
    ] = "",
    list_where: Annotated[
        list[str] | None,
        typer.Option(help="Only rows of --list with this value, as in data_provider=radboud; repeatable."),
    ] = None,
    slide_mpp: SlideMpp = None,
    overrule_mpp: OverruleMpp = False,
    detections: Detections = False,
    annotation_suffix: Annotated[
        str, typer.Option(help="Suffix that names of annotations add to names of slides, such as _annotations.geojson.")
    ] = "",
    case_pattern: Annotated[
        str | None, typer.Option(help="Regular expression whose group is the case, as in '^(TCGA-..-....)'.")
    ] = None,
    val_share: Annotated[float, typer.Option(help="Share of slides for validation, drawn by case.")] = 0.15,
    seed: Annotated[int, typer.Option(help="Seed of the grid, the order and the split.")] = 0,
    workers: Annotated[int, typer.Option(help="Number of processes; does not change the result.")] = 1,
    ray: Annotated[str, typer.Option(help="Ray cluster to run on: auto, ray://host:10001, or local.")] = "",
    license_name: LicenseName = UNKNOWN.name,
    attribution: Attribution = UNKNOWN.attribution,
) -> None:
    """Cut patches that show more than one tissue from annotated slides.

    The dataset holds a picture of every slide with its patches. Broken slides are named and skipped, and the exit code
    is then 3. Repeat the command to resume a killed run; on a finished dataset it does nothing.
    """
    check_out(out)

    from histoloom.cli.progress import bar
    from histoloom.distributed import Workers
    from histoloom.patches.card import type_table
    from histoloom.patches.dataset import check_license
    from histoloom.patches.from_slides import OVERLAYS, extract_slides, made_from
    from histoloom.patches.rules import PatchRules, SlideDataset, SlideList
    from histoloom.patches.slide_jobs import find_jobs
    from histoloom.slides.labeling import AnnotationConfig
    from histoloom.tissue import TissueTable

    rules = PatchRules(
        mpp=mpp,
        size=size,
        stride=size if stride is None else stride,
        low=low,
        high=high,
        min_tissue=min_tissue,
        min_labelled=min_labelled,
        min_focus=min_focus,
        per_slide=per_slide,
        per_type=per_type,
        seed=seed,
    )
    config = SlideDataset(
        rules=rules,
        annotations=AnnotationConfig(
            order=tuple(order or ()), ignore=tuple(ignore or ()), rest=rest, detections=detections
        ),
        listed=SlideList(slide=list_column, case=list_case, mpp=list_mpp, where=tuple(list_where or ())),
        slide_mpp=slide_mpp,
        overrule_mpp=overrule_mpp,
        pixels=pixels,
        unannotated=unannotated,
        leave_out=tuple(leave_out or ()),
        annotation_suffix=annotation_suffix,
        case_pattern=case_pattern,
        val_share=val_share,
    )
    table, license = TissueTable.load(tissue), License(license_name, attribution)
    jobs, notes = find_jobs(slides, annotations, config, listing)
    result = made_from(out, jobs, table, config)
    end = f"{out} is up to date: it was made from the same files with the same settings"
    if result is not None:
        check_license(result.record, license, out)
    else:
        with bar("slides", len(jobs), "slides") as running:
            result = extract_slides(jobs, notes, table, config, out, Workers(workers, ray), license, running)
        end = f"wrote {out}; its README.md describes it, {OVERLAYS}/ shows the patches of each slide"
    for line in (*result.notes, *(f"skipped: {failure}" for failure in result.failures)):
        typer.echo(line, err=True)
    for summary in result.summaries:
        typer.echo(f"{summary.name}: {counted(summary.patches, 'patch')} of {counted(summary.cases, 'case')}")
    typer.echo(type_table(result.summaries, table))
    typer.echo(end)
    if result.failures:
        typer.echo(f"{len(result.failures)} of {len(jobs)} slides were skipped", err=True)
        raise typer.Exit(SKIPPED)


def overlay(
    slide: Annotated[Path, typer.Argument(help="The slide.")],
    out: Annotated[Path, typer.Option(help="Picture to write (PNG or JPEG).")],
    annotation: Annotated[Path | None, typer.Option(help="GeoJSON, ASAP XML or label raster of the slide.")] = None,
    tissue: Annotated[Path | None, typer.Option(help="tissue.toml; needed with an annotation.")] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Dataset; its patches of this slide are drawn, and its annotation.")
    ] = None,
    rest: Rest = "",
    ignore: Ignore = None,
    order: Order = None,
    slide_mpp: SlideMpp = None,
    overrule_mpp: OverruleMpp = False,
    detections: Detections = False,
    edge: Annotated[int, typer.Option(help="Longer side of the picture in pixels.")] = 1600,
) -> None:
    """Draw tissue, annotation and chosen patches on a thumbnail of a slide.

    Annotated areas are tinted in the colors of tissue.toml, the rim of the tissue is green, patches are dark squares.
    """
    from histoloom.errors import ConfigError
    from histoloom.patches.from_slides import annotation_of
    from histoloom.patches.places import PlaceReader
    from histoloom.slides.labeling import AnnotationConfig
    from histoloom.slides.overlay import draw_overlay, picture_format, save_overlay
    from histoloom.slides.reader import open_slide
    from histoloom.slides.tissue import find_tissue
    from histoloom.tissue import TissueTable

    if annotation is not None and tissue is None:
        raise ConfigError("an annotation needs a tissue table for its colors; give --tissue")
    if not 16 <= edge <= 20_000:
        raise ConfigError(f"--edge is {edge}; give 16 to 20000 pixels")
    if annotation is None and (rest or ignore or order or detections):
        raise ConfigError(
            "--rest, --ignore, --order and --detections have no effect without --annotation; leave them out"
        )
    picture_format(out)
    table = TissueTable.load(tissue) if tissue is not None else None
    reader = PlaceReader(dataset) if dataset is not None else None
    source = reader.source_of(slide) if reader is not None else ""
    if reader is not None and slide_mpp is None:
        slide_mpp, overrule_mpp = reader.scale_of(source)
    with writable(out), open_slide(slide, slide_mpp, overrule_mpp) as opened:
        drawn = None
        if annotation is not None and table is not None:
            reading = AnnotationConfig(
                order=tuple(order or ()), ignore=tuple(ignore or ()), rest=rest, detections=detections
            )
            drawn = annotation_of(annotation, opened, table, reading)
        elif reader is not None:
            drawn, table = reader.annotation(source), reader.table
        for note in (*opened.notes, *(drawn.notes if drawn is not None else ())):
            typer.echo(note, err=True)
        places = reader.places(source) if reader is not None else []
        save_overlay(draw_overlay(opened, find_tissue(opened), drawn, table, places, edge), out)
    typer.echo(f"wrote {out}: {counted(len(places), 'patch')}" if reader is not None else f"wrote {out}")
