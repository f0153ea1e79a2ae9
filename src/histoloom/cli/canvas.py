"""`histoloom canvas`: a synthetic slide of any size; `inpaint`: a region of a real image, redrawn; `pairs`: edits."""

from pathlib import Path
from typing import Annotated, cast

import typer

from histoloom.canvas.settings import CanvasConfig, Edit, Rule
from histoloom.cli.notes import echo_notes
from histoloom.cli.weave import CropGuidance, GuidanceInterval, MapGuidance, Model, Steps, open_bank
from histoloom.errors import ConfigError
from histoloom.files import check_out, check_writable, writable
from histoloom.generation.settings import check_mpp
from histoloom.text import counted, printable


def canvas(
    model: Model,
    map: Annotated[
        Path, typer.Option(help="What is where: a label PNG or TIFF, or QuPath GeoJSON in pixels of the canvas.")
    ],
    out: Annotated[Path, typer.Option(help="Slide to write, *.tif; labels and record go into a folder of its name.")],
    crops: Annotated[
        Path | None,
        typer.Option(help="Folder of crops, as for `generate`. Default: the model's bank."),
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(help="Micrometers per pixel of map and canvas. Default: those of the model.")
    ] = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Width and height of the canvas in pixels, for GeoJSON. Default: the size of the raster."),
    ] = None,
    rest: Annotated[str, typer.Option(help="Tissue type of all that is not annotated. Default: unlabeled.")] = "",
    ome: Annotated[
        bool,
        typer.Option("--ome", help="Write an OME-TIFF with SubIFDs, of which OpenSlide sees the first level only."),
    ] = CanvasConfig.ome,
    steps: Steps = CanvasConfig.steps,
    sampler: Annotated[
        str | None, typer.Option(help="As for `generate`. Default: the model's.")
    ] = CanvasConfig.sampler,
    map_guidance: MapGuidance = CanvasConfig.map_guidance,
    crop_guidance: CropGuidance = CanvasConfig.crop_guidance,
    guidance_interval: GuidanceInterval = CanvasConfig.guidance_interval,
    window: Annotated[
        int, typer.Option(help="Edge of the windows that the network sees, in pixels.")
    ] = CanvasConfig.window,
    overlap: Annotated[
        float, typer.Option(help="Share of a window that the next one covers again.")
    ] = CanvasConfig.overlap,
    crop_cell: Annotated[
        float, typer.Option(help="Edge of the cells in which each region chooses its crop, in micrometers.")
    ] = CanvasConfig.crop_cell,
    seed: Annotated[int, typer.Option(help="Seed of noise, windows and crops.")] = CanvasConfig.seed,
    workers: Annotated[int, typer.Option(help="Processes that weave strips; each opens the model.")] = 1,
    ray: Annotated[
        str, typer.Option(help="Ray cluster to run on: auto, ray://host:10001, or local. It must see the same folders.")
    ] = "",
) -> None:
    """Weave an annotated synthetic slide of any size, with labels and polygons that fit it.

    Memory grows with the width and not with the height. Unlabeled parts are woven without guidance. Repeat the command
    to resume a killed run: it ends with the same bytes, as it does with several workers (in fp32, if OMP_NUM_THREADS=1
    is set).
    """
    config = CanvasConfig(
        steps=steps,
        sampler=sampler,
        map_guidance=map_guidance,
        crop_guidance=crop_guidance,
        guidance_interval=guidance_interval,
        seed=seed,
        window=window,
        overlap=overlap,
        crop_cell=crop_cell,
        ome=ome,
    )
    if mpp is not None:
        check_mpp(mpp)

    from histoloom.canvas.weave import folder_of, weave_canvas

    check_out(folder_of(out))  # before the model is loaded
    check_writable(out)

    from histoloom.canvas.layout import Layout
    from histoloom.cli.progress import bar
    from histoloom.distributed import Workers
    from histoloom.generation.woven_folder import scale_of
    from histoloom.models.pipeline import HistoloomPipeline

    pipeline = HistoloomPipeline.load(model)
    scale = scale_of(pipeline, mpp)
    if scale is None:
        raise ConfigError(f"{model}: does not say at which scale it was trained; give micrometers per pixel with --mpp")
    if crops is not None and not pipeline.denoiser.reads.crops:
        raise ConfigError(f"{model}: is a model that reads no crops; leave out --crops")
    bank = open_bank(crops, pipeline)
    layout = Layout(map, pipeline.table, size, rest)
    with writable(out):
        weave_canvas(
            pipeline,
            layout,
            bank,
            config,
            scale,
            out,
            bar,
            lambda line: typer.echo(printable(line), err=True),
            Workers(workers, ray),
        )
    typer.echo(printable(f"wrote {out}; labels and polygons are in {folder_of(out)}"))


def inpaint(
    model: Model,
    image: Annotated[Path, typer.Option(help="Picture to redraw a region of; or a slide, with --at.")],
    map: Annotated[
        Path, typer.Option(help="Label picture of the same size: the map to follow, around the region, too.")
    ],
    mask: Annotated[
        Path, typer.Option(help="Picture of the same size: what is neither black nor transparent is redrawn.")
    ],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    crops: Annotated[
        Path | None, typer.Option(help="Folder of crops, as for `generate`. Default: the model's bank.")
    ] = None,
    at: Annotated[
        tuple[int, int] | None, typer.Option(help="Level-0 pixel (x, y) of a slide where the region of the map begins.")
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(help="Micrometers per pixel at which a slide is read. Default: those of the model.")
    ] = None,
    slide_mpp: Annotated[
        float | None, typer.Option(help="Micrometers per level-0 pixel of a slide whose file does not say it.")
    ] = None,
    steps: Steps = CanvasConfig.steps,
    map_guidance: MapGuidance = CanvasConfig.map_guidance,
    crop_guidance: CropGuidance = CanvasConfig.crop_guidance,
    seed: Annotated[int, typer.Option(help="Seed of noise and crops.")] = CanvasConfig.seed,
) -> None:
    """Redraw one region of a real image after a map and crops; every other pixel stays the same.

    The result contains pixels of a patient. It says which pixels are real.
    """
    sampling = CanvasConfig(steps=steps, map_guidance=map_guidance, crop_guidance=crop_guidance, seed=seed)
    for option, value in (("--mpp", mpp), ("--slide-mpp", slide_mpp)):
        if at is None and value is not None:
            raise ConfigError(f"{option} {value:g} has no effect without --at, which says that the image is a slide")
    if mpp is not None:
        check_mpp(mpp)
    check_out(out)  # before the model is loaded

    import numpy as np

    from histoloom.canvas.inpaint import read_mask, write_inpainted
    from histoloom.errors import ImageError, InputError
    from histoloom.models.pipeline import HistoloomPipeline
    from histoloom.models.sampling import Sampling
    from histoloom.patches.maps import MapReader
    from histoloom.pictures import read_image
    from histoloom.slides.find import SCANNER_SUFFIXES
    from histoloom.slides.reader import open_slide
    from histoloom.tissue import UNLABELLED
    from histoloom.walk import suffix_of

    pipeline = HistoloomPipeline.load(model)
    semantic_map = MapReader(pipeline.table).read(map)
    if at is None:
        try:
            pixels = read_image(image)
        except ImageError as error:
            hint = "; of a slide, say with --at where the map begins" if suffix_of(image) in SCANNER_SUFFIXES else ""
            raise ImageError(f"{error}{hint}") from None
    else:
        scale = mpp or pipeline.mpp
        if scale is None:
            raise ConfigError(f"{model}: does not say at which scale it was trained; give the scale with --mpp")
        with open_slide(image, slide_mpp) as slide:
            height, width = semantic_map.shape
            if not slide.covers(*at, (width, height), scale):
                wide, high = (round(edge * scale / slide.mpp) for edge in (width, height))
                raise InputError(
                    f"{image}: is {slide.size[0]} x {slide.size[1]} px, and the region at {at[0]} {at[1]} has {wide} x "
                    f"{high} of them, so it is not all on the slide; give another --at, or a smaller map"
                )
            echo_notes((*slide.notes, *slide.notes_at(scale)))
            pixels = slide.read(*at, (width, height), scale)
    if pixels.shape[:2] != semantic_map.shape:
        raise InputError(
            f"{map}: is {semantic_map.shape[1]} x {semantic_map.shape[0]} px, and the image {pixels.shape[1]} x "
            f"{pixels.shape[0]}; give one pixel per pixel of the image"
        )
    region = read_mask(mask, pixels.shape)
    bank = open_bank(crops, pipeline)
    wanted = np.where(region, semantic_map, np.uint8(UNLABELLED))
    mine = bank.draw(wanted, np.random.default_rng(seed)) if bank.sets else []
    asked = Sampling(steps=steps, map_guidance=map_guidance, crop_guidance=crop_guidance)
    write_inpainted(pipeline, pixels, semantic_map, region, mine, asked, sampling.seed, out)
    typer.echo(printable(f"wrote {out / 'image.png'}; {out / 'real.png'} says which pixels are real"))


def pairs(
    model: Model,
    maps: Annotated[Path, typer.Option(help="Folder of label maps, or a patch dataset.")],
    tissue: Annotated[str, typer.Option(help="Tissue type that is edited.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    rule: Annotated[
        str,
        typer.Option(
            help="grow, shrink or thicken its regions, move its border with --to, merge neighbors, or change the type "
            "of the largest."
        ),
    ] = Edit.rule,
    by: Annotated[
        int, typer.Option(help="Pixels by which borders move; merge fills gaps of up to twice that.")
    ] = Edit.by,
    to: Annotated[str, typer.Option(help="Tissue type that change gives, or into which move goes.")] = Edit.to,
    split: Annotated[str, typer.Option(help="Split of a patch dataset.")] = "",
    crops: Annotated[
        Path | None, typer.Option(help="Folder of crops, as for `generate`. Default: the model's bank.")
    ] = None,
    steps: Steps = CanvasConfig.steps,
    map_guidance: MapGuidance = CanvasConfig.map_guidance,
    crop_guidance: CropGuidance = CanvasConfig.crop_guidance,
    seed: Annotated[int, typer.Option(help="Pair i has seed + i.")] = CanvasConfig.seed,
) -> None:
    """Weave pairs of patches, before and after an edit of their map, with everything else equal.

    Pixels that are farther than 16 px from the edit are the same in both.
    """
    CanvasConfig(seed=seed)
    edit = Edit(rule=cast(Rule, rule), tissue=tissue, by=by, to=to)
    check_out(out)  # before the model is loaded

    from histoloom.canvas.pairs import weave_pairs
    from histoloom.cli.progress import bar
    from histoloom.generation.map_sources import find_maps, is_dataset, maps_in
    from histoloom.models.pipeline import HistoloomPipeline
    from histoloom.models.sampling import Sampling

    pipeline = HistoloomPipeline.load(model)
    source = maps_in(maps, split, pipeline.table)
    if not is_dataset(maps):
        echo_notes(f"{maps}: {note}" for note in find_maps(maps).notes)
    read = [source.read(number) for number in range(len(source))]
    bank = open_bank(crops, pipeline)
    asked = Sampling(steps=steps, map_guidance=map_guidance, crop_guidance=crop_guidance)
    rows = weave_pairs(pipeline, read, bank, edit, asked, seed, out, bar)
    unchanged = len(read) - len(rows)
    rest = f"; left out: {counted(unchanged, 'map')} that the edit does not change" if unchanged else ""
    typer.echo(printable(f"wrote {counted(len(rows), 'pair')} to {out}{rest}"))
