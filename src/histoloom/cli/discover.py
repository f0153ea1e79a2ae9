"""`histoloom discover embed`, `choose`, `cluster` and `plan`: tissue types without labels, and what they will cost."""

from pathlib import Path
from typing import Annotated

import typer

from histoloom.cli.slides import SKIPPED, SlideMpp

Folder = Annotated[Path, typer.Argument(help="Folder of `histoloom discover embed`.")]
Processes = Annotated[int, typer.Option(help="Processes; the result is the same whatever their number.")]
Ray = Annotated[str, typer.Option(help="Address of a Ray cluster to run on: auto, ray://host:10001, or local.")]
Mpp = Annotated[float, typer.Option(help="Micrometres per pixel of the patches; a dataset keeps its own.")]
Size = Annotated[
    int | None, typer.Option(help="Patch edge in pixels. Default: 256 on slides, the whole patch of a dataset.")
]
Stride = Annotated[int | None, typer.Option(help="Pixels from one patch to the next. Default: the edge.")]
MinTissue = Annotated[float, typer.Option(help="Least share of tissue, against glass; slides only.")]
Split = Annotated[str, typer.Option(help="Split of a patch dataset.")]
Listing = Annotated[Path | None, typer.Option("--list", help="CSV file whose column `slide` names the slides to take.")]


def embed(
    source: Annotated[Path, typer.Argument(help="A slide, a folder of slides, or a patch dataset.")],
    out: Annotated[Path, typer.Option(help="Folder for the embeddings and all that is made of them.")],
    encoder: Annotated[
        str, typer.Option(help="histoloom-small, a folder of train-encoder, timm:NAME, or a name of lazyslide-models.")
    ] = "histoloom-small",
    mpp: Mpp = 0.5,
    size: Size = None,
    stride: Stride = None,
    min_tissue: MinTissue = 0.5,
    min_focus: Annotated[float, typer.Option(help="Least sharpness; 0 takes blurred patches too; slides only.")] = 0.02,
    split: Split = "train",
    listing: Listing = None,
    slide_mpp: SlideMpp = None,
    case_pattern: Annotated[
        str | None, typer.Option(help="Regular expression whose group is the case, as in '^(TCGA-..-....)'.")
    ] = None,
    of_chosen: Annotated[
        Path | None,
        typer.Option(help="Folder of `discover choose` whose chosen patches alone are embedded, by another encoder."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Patches at a time.")] = 32,
    readers: Annotated[int, typer.Option(help="Threads that read pixels beside the encoder.")] = 2,
    float32: Annotated[bool, typer.Option("--float32", help="Store vectors in single precision, not in half.")] = False,
    workers: Processes = 1,
    ray: Ray = "",
) -> None:
    """Step 1: every tissue patch becomes a vector.

    Slides that are broken or hold no tissue are named and skipped, and the exit code is then 3. A killed run goes on
    when repeated; the same command again does nothing.
    """
    from histoloom.cli.progress import bar
    from histoloom.discovery.embed import EmbedConfig
    from histoloom.discovery.embed import embed as run
    from histoloom.discovery.parts import Cutting, find_parts
    from histoloom.distributed import Workers
    from histoloom.encoders.small import ENCODER, SMALL

    # Workers and later steps may stand in other folders than this one does.
    if encoder != SMALL and (Path(encoder) / ENCODER).is_file():
        encoder = str(Path(encoder).absolute())
    chosen = None if of_chosen is None else str(of_chosen.absolute())
    cutting = Cutting(mpp, size, stride, min_tissue, min_focus, split, slide_mpp, case_pattern, chosen)
    config = EmbedConfig(encoder, cutting, batch_size, readers, "float32" if float32 else "float16")
    parts, notes = find_parts(source, cutting, listing)
    for note in notes:
        typer.echo(note, err=True)
    with bar("embedding", len(parts), "parts") as running:
        done = run(parts, config, out, source, Workers(workers, ray), running.advance)
    for failure in done.failures:
        typer.echo(f"skipped: {failure}", err=True)
    typer.echo(f"wrote {out}: {done.patches:,} patches in {done.parts:,} parts; next: histoloom discover choose {out}")
    if done.failures:
        typer.echo(f"{len(done.failures)} of {len(parts)} slides were skipped", err=True)
        raise typer.Exit(SKIPPED)


def choose(
    folder: Folder,
    per_slide: Annotated[int, typer.Option(help="Patches chosen of each slide, at most.")] = 1000,
    workers: Processes = 1,
    ray: Ray = "",
) -> None:
    """Step 2: of each slide the patches that differ most.

    A killed run goes on when repeated; the same command again does nothing.
    """
    from histoloom.cli.progress import bar
    from histoloom.discovery.choose import ChooseConfig
    from histoloom.discovery.choose import choose as run
    from histoloom.discovery.embeddings import open_table
    from histoloom.distributed import Workers

    config, table = ChooseConfig(per_slide), open_table(folder)
    with bar("choosing", len(table.paths), "parts") as running:
        count = run(folder, config, Workers(workers, ray), running.advance)
    typer.echo(f"chose {count:,} of {table.rows:,} patches; next: histoloom discover cluster {folder}")


def cluster(
    folder: Folder,
    levels: Annotated[
        str, typer.Option(help="Numbers of types, coarse to fine; each coarser type is a union of finer ones.")
    ] = "5,10,20,50,100",
    seed: Annotated[int, typer.Option(help="Seed of the sample and of the first centroids.")] = 0,
    starts: Annotated[int, typer.Option(help="Times that first centroids are drawn; the best are kept.")] = 3,
) -> None:
    """Step 3: chosen patches become nested tissue types.

    Writes types.parquet, types.json and assignments.parquet into the folder; the same seed gives the same bytes.
    """
    from histoloom.cli.progress import bar
    from histoloom.discovery.cluster import ClusterConfig
    from histoloom.discovery.cluster import cluster as run
    from histoloom.discovery.embeddings import open_chosen
    from histoloom.discovery.kmeans import KMeansConfig
    from histoloom.errors import ConfigError

    try:
        numbers = tuple(int(level) for level in levels.split(","))
    except ValueError:
        raise ConfigError(f"levels {levels!r} are no numbers; write them as in 5,10,20") from None
    config = ClusterConfig(numbers, KMeansConfig(starts, seed=seed))
    with bar("clustering", open_chosen(folder).rows, "patches") as running:
        tree, notes = run(folder, config, running.advance)
    for note in notes:
        typer.echo(note, err=True)
    sizes = f"the finest have {int(tree.sizes.min()):,} to {int(tree.sizes.max()):,} patches"
    typer.echo(f"wrote {folder}: types at levels {', '.join(map(str, tree.levels))}; {sizes}")


def plan(
    source: Annotated[
        Path | None, typer.Argument(help="Slides or a patch dataset to count; or give --slides and --patches.")
    ] = None,
    slides: Annotated[int | None, typer.Option(help="Number of slides.")] = None,
    patches: Annotated[int | None, typer.Option(help="Number of their tissue patches.")] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="Encoder to price; repeatable. Default: all that are known.")
    ] = None,
    per_slide: Annotated[int, typer.Option(help="Patches chosen of each slide.")] = 1000,
    tflops: Annotated[
        float, typer.Option(help="10^12 operations per second that a GPU keeps up; an A100 has 312 at its peak.")
    ] = 100.0,
    rate: Annotated[float | None, typer.Option(help="Patches per second of the one --encoder, where known.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the rate of the one --encoder on this machine.")
    ] = False,
    mpp: Mpp = 0.5,
    size: Size = None,
    stride: Stride = None,
    min_tissue: MinTissue = 0.5,
    split: Split = "train",
    listing: Listing = None,
    slide_mpp: SlideMpp = None,
    workers: Processes = 1,
    ray: Ray = "",
) -> None:
    """Price a discovery before it starts: patches, hours and storage for each encoder.

    With a folder, patches are counted from thumbnails of its slides.
    """
    from histoloom.cli.progress import bar
    from histoloom.discovery.parts import Cutting, find_parts
    from histoloom.discovery.plan import PlanConfig, count_patches, describe, make_plan, measure_rate
    from histoloom.distributed import Workers
    from histoloom.errors import ConfigError

    if (source is None) == (slides is None or patches is None):
        raise ConfigError("give a folder of slides to count, or both --slides and --patches")
    dimensions = None
    if measure:
        if rate is not None or len(encoder or ()) != 1:
            raise ConfigError("--measure needs one --encoder, and no --rate")
        rate, dimensions = measure_rate(encoder[0], size or 256)
        typer.echo(f"measured here: {rate:,.1f} patches/s of {encoder[0]}; hours are hours of this machine", err=True)
    named = {"encoders": tuple(encoder)} if encoder else {}
    config = PlanConfig(**named, per_slide=per_slide, tflops=tflops, rate=rate)
    if source is not None:
        cutting = Cutting(mpp, size, stride, min_tissue, split=split, slide_mpp=slide_mpp)
        parts, notes = find_parts(source, cutting, listing)
        with bar("counting", len(parts), "slides") as running:
            slides, patches, failures = count_patches(parts, cutting, Workers(workers, ray), running.advance)
        for line in (*notes, *(f"skipped: {failure}" for failure in failures)):
            typer.echo(line, err=True)
    typer.echo(describe(make_plan(slides, patches, config, dimensions)))
