"""`histoloom discover embed`, `choose`, `cluster` and `plan`: tissue types without labels, and their cost."""

from pathlib import Path
from typing import Annotated

import typer

from histoloom.cli.slides import SKIPPED, SlideMpp
from histoloom.files import check_out, check_writable
from histoloom.text import counted

Folder = Annotated[Path, typer.Argument(help="Folder of `histoloom discover embed`.")]
Processes = Annotated[int, typer.Option("--workers", help="Number of processes; does not change the result.")]
Ray = Annotated[
    str,
    typer.Option(
        help="Address of a Ray cluster to run on: auto, ray://host:10001, or local, which starts one on this machine. "
        "Whoever can reach the ports of a cluster can run code on it."
    ),
]
Mpp = Annotated[float, typer.Option(help="Micrometers per pixel of the patches; a dataset keeps its own.")]
Size = Annotated[
    int | None, typer.Option(help="Patch edge in pixels. Default: 256 on slides, the whole patch of a dataset.")
]
Stride = Annotated[int | None, typer.Option(help="Pixels from one patch to the next. Default: the edge.")]
MinTissue = Annotated[float, typer.Option(help="Minimum share of tissue in a patch; slides only.")]
Split = Annotated[str, typer.Option(help="Split of a patch dataset.")]
Listing = Annotated[Path | None, typer.Option("--list", help="CSV file whose column `slide` names the slides to use.")]
RemoteCode = Annotated[
    bool,
    typer.Option(
        "--allow-remote-code", help="Load an encoder that runs code from the internet, such as hibou, on this machine."
    ),
]


def embed(
    source: Annotated[Path, typer.Argument(help="A slide, a folder of slides, or a patch dataset.")],
    out: Annotated[Path, typer.Option(help="Folder for the embeddings and all later results.")],
    encoder: Annotated[
        str, typer.Option(help="histoloom-small, a folder of train-encoder, timm:NAME, or a name of lazyslide-models.")
    ] = "histoloom-small",
    mpp: Mpp = 0.5,
    size: Size = None,
    stride: Stride = None,
    min_tissue: MinTissue = 0.5,
    min_focus: Annotated[float, typer.Option(help="Minimum sharpness; 0 includes blurred patches.")] = 0.02,
    split: Split = "train",
    listing: Listing = None,
    slide_mpp: SlideMpp = None,
    case_pattern: Annotated[
        str | None,
        typer.Option(help="Regular expression whose group in the file name is the case, such as '^(TCGA-..-....)'."),
    ] = None,
    of_chosen: Annotated[
        Path | None,
        typer.Option(help="Folder of `discover choose`; embeds only its chosen patches, with another encoder."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Patches per call of the encoder.")] = 32,
    readers: Annotated[int, typer.Option(help="Threads that read pixels while the encoder works.")] = 2,
    float32: Annotated[bool, typer.Option("--float32", help="Store vectors in single precision.")] = False,
    allow_remote_code: RemoteCode = False,
    workers: Processes = 1,
    ray: Ray = "",
) -> None:
    """Step 1: turn every tissue patch into a vector.

    Slides that are damaged or show no tissue are named and skipped; the exit code is then 3, and the next run tries
    them again. Repeat the command to continue a killed run. A finished run does not change.
    """
    check_out(out, in_place=True)

    from histoloom.cli.progress import bar
    from histoloom.discovery.cutting import Cutting
    from histoloom.discovery.embed import embed as run
    from histoloom.discovery.embedding_run import EmbedConfig
    from histoloom.discovery.parts import find_parts
    from histoloom.discovery.windows import is_dataset
    from histoloom.distributed import Workers

    cutting = Cutting(
        mpp=mpp,
        size=size,
        stride=stride,
        min_tissue=min_tissue,
        min_focus=min_focus,
        split=split,
        slide_mpp=slide_mpp,
        case_pattern=case_pattern,
        of_chosen=None if of_chosen is None else str(of_chosen),
    )
    config = EmbedConfig(
        encoder=encoder,
        cutting=cutting,
        batch_size=batch_size,
        readers=readers,
        precision="float32" if float32 else "float16",
        allow_remote_code=allow_remote_code,
    )
    processes = Workers(workers, ray)
    parts, notes = find_parts(source, cutting, listing)
    for note in notes:
        typer.echo(note, err=True)
    with bar("embedding", len(parts), "parts") as running:
        done = run(parts, config, out, source, processes, running)
    for line in (*done.notes, *(f"skipped: {failure}" for failure in done.failures)):
        typer.echo(line, err=True)
    made = f"{counted(done.patches, 'patch')} in {counted(done.parts, 'part')}"
    typer.echo(f"wrote {out}: {made}; next: histoloom discover choose {out}")
    if done.failures:
        unit = "parts" if is_dataset(source) else "slides"
        typer.echo(f"{len(done.failures)} of {len(parts)} {unit} were skipped", err=True)
        raise typer.Exit(SKIPPED)


def choose(
    folder: Folder,
    per_slide: Annotated[int, typer.Option(help="Maximum number of patches per slide.")] = 1000,
    workers: Processes = 1,
    ray: Ray = "",
) -> None:
    """Step 2: choose the patches of each slide that differ most.

    Repeat the command to continue a killed run. A finished run does not change.
    """
    from histoloom.cli.progress import bar
    from histoloom.discovery.choose import ChooseConfig
    from histoloom.discovery.choose import choose as run
    from histoloom.discovery.embeddings import open_table
    from histoloom.distributed import Workers

    config, table = ChooseConfig(per_slide), open_table(folder)
    check_writable(folder)
    with bar("choosing", len(table.paths), "parts") as running:
        count = run(folder, config, Workers(workers, ray), running)
    typer.echo(f"chose {count:,} of {table.rows:,} patches; next: histoloom discover cluster {folder}")


def cluster(
    folder: Folder,
    levels: Annotated[
        str, typer.Option(help="Numbers of types, coarse to fine; each coarser type is a union of finer ones.")
    ] = "5,10,20,50,100",
    seed: Annotated[int, typer.Option(help="Seed of the sample and of the initial centroids.")] = 0,
    starts: Annotated[int, typer.Option(help="Number of random starts; the best one is kept.")] = 3,
) -> None:
    """Step 3: cluster the chosen patches into nested tissue types.

    Writes types.parquet, types.json and assignments.parquet into the folder. The same seed gives the same bytes.
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
        raise ConfigError(f"levels {levels[:80]!r}: write numbers of types, such as 5,10,20") from None
    config = ClusterConfig(numbers, KMeansConfig(starts=starts, seed=seed))
    rows = open_chosen(folder).rows
    check_writable(folder)
    with bar("clustering", rows, "patches") as running:
        tree, notes = run(folder, config, running)
    for note in notes:
        typer.echo(note, err=True)
    sizes = "" if tree.sizes is None else f"; the finest have {tree.sizes.min():,} to {tree.sizes.max():,} patches"
    typer.echo(f"wrote {folder}: types at levels {', '.join(map(str, tree.levels))}{sizes}")


def plan(
    source: Annotated[
        Path | None, typer.Argument(help="Slides or a patch dataset to count; or give --slides and --patches.")
    ] = None,
    slides: Annotated[int | None, typer.Option(help="Number of slides.")] = None,
    patches: Annotated[int | None, typer.Option(help="Number of their tissue patches.")] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="Encoder to estimate; repeatable. Default: all with known cost.")
    ] = None,
    per_slide: Annotated[int, typer.Option(help="Number of patches chosen per slide.")] = 1000,
    tflops: Annotated[
        float, typer.Option(help="Sustained 10^12 operations per second of a GPU; the peak of an A100 is 312.")
    ] = 100.0,
    rate: Annotated[float | None, typer.Option(help="Patches per second of the one --encoder, if known.")] = None,
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
    allow_remote_code: RemoteCode = False,
    workers: Processes = 1,
    ray: Ray = "",
) -> None:
    """Estimate the cost of a discovery: patches, hours and storage for each encoder.

    With a folder, patches are counted on thumbnails of its slides.
    """
    from histoloom.cli.progress import bar
    from histoloom.discovery.cutting import Cutting
    from histoloom.discovery.parts import find_parts
    from histoloom.discovery.plan import PlanConfig, count_patches, describe, make_plan, measure_rate
    from histoloom.distributed import Workers
    from histoloom.errors import ConfigError

    dimensions = None
    if measure:
        if rate is not None or encoder is None or len(encoder) != 1:
            raise ConfigError("--measure needs exactly one --encoder, and no --rate")
        rate, dimensions = measure_rate(encoder[0], size or 256, allow_remote_code=allow_remote_code)
        typer.echo(f"measured here: {rate:,.1f} patches/s with {encoder[0]}; hours are for this machine", err=True)
    encoders = tuple(encoder) if encoder else PlanConfig().encoders
    config = PlanConfig(encoders=encoders, per_slide=per_slide, tflops=tflops, rate=rate)
    if source is not None and slides is None and patches is None:
        cutting = Cutting(mpp=mpp, size=size, stride=stride, min_tissue=min_tissue, split=split, slide_mpp=slide_mpp)
        parts, notes = find_parts(source, cutting, listing)
        with bar("counting", len(parts), "slides") as running:
            slides, patches, failures = count_patches(parts, cutting, Workers(workers, ray), running)
        for line in (*notes, *(f"skipped: {failure}" for failure in failures)):
            typer.echo(line, err=True)
    elif source is not None or slides is None or patches is None:
        raise ConfigError("give a folder of slides to count, or both --slides and --patches")
    typer.echo(describe(make_plan(slides, patches, config, dimensions)))
