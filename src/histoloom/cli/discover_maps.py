"""`histoloom discover classify`, `maps` and `look`: from types to maps of all slides, and a page that shows both."""

from pathlib import Path
from typing import Annotated

import typer

from histoloom.cli.discover import Processes, Ray, RemoteCode
from histoloom.cli.slides import SKIPPED, SlideMpp
from histoloom.files import check_out
from histoloom.license import UNKNOWN, License
from histoloom.text import counted

Names = Annotated[
    Path | None, typer.Option(help="discovered.toml with names, colors and merges of types; `look` drafts it.")
]


def classify(
    discovered: Annotated[Path, typer.Argument(help="Folder of `histoloom discover cluster`.")],
    out: Annotated[Path, typer.Option(help="Folder for the classifier, its card and its checkpoint.")],
    steps: Annotated[int, typer.Option(help="Training steps.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Windows per step.")] = 64,
    input_size: Annotated[int, typer.Option("--input", help="Pixels to which a window is resized.")] = 96,
    depth: Annotated[int, typer.Option(help="Blocks of the vision transformer.")] = 6,
    val_share: Annotated[float, typer.Option(help="Share of windows to test on, drawn by case.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of weights, windows and split.")] = 0,
    allow_remote_code: RemoteCode = False,
) -> None:
    """Step 4: train a small classifier that predicts types without the encoder, and test it on unseen cases.

    Repeat the command to continue a stopped run; the result is the same. `histoloom discover maps --by OUT` uses it.
    """
    check_out(out, in_place=True)

    from dataclasses import replace

    from histoloom.cli.progress import bar
    from histoloom.discovery.classifier import ClassifierConfig
    from histoloom.discovery.classify import classify as run
    from histoloom.discovery.distill import Distillation

    default = Distillation()
    model = ClassifierConfig(input=input_size, depth=depth)
    loop = replace(default.loop, steps=steps, batch_size=batch_size, seed=seed)
    tested = run(discovered, Distillation(val_share=val_share, model=model, loop=loop), out, bar, allow_remote_code)
    typer.echo(tested.table)
    typer.echo(tested.cost)
    typer.echo(f"wrote {out}; draw maps with: histoloom discover maps SLIDES --by {out} --out maps")


def maps(
    source: Annotated[Path, typer.Argument(help="A slide, a folder of slides, or a patch dataset.")],
    by: Annotated[
        Path, typer.Option(help="Folder of `discover classify`, or of `discover cluster` to use the encoder itself.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the maps, or of the new patch dataset.")],
    types: Annotated[
        list[int] | None,
        typer.Option(help="Level, as its number of types; repeatable. Default: all; for a dataset, the finest."),
    ] = None,
    names: Names = None,
    stride: Annotated[
        int | None, typer.Option(help="Pixels from one window to the next. Default: a quarter of a window.")
    ] = None,
    smooth: Annotated[float, typer.Option(help="Sigma of the smoothing of votes, in strides.")] = 1.0,
    low: Annotated[float, typer.Option(help="For a dataset: minimum share of the most common type in a patch.")] = 0.0,
    high: Annotated[float, typer.Option(help="For a dataset: maximum share; the paper uses 0.2 and 0.8.")] = 1.0,
    slide_mpp: SlideMpp = None,
    allow_remote_code: RemoteCode = False,
    workers: Processes = 1,
    ray: Ray = "",
    license_name: Annotated[
        str,
        typer.Option(
            "--license", help="License for the card of a dataset. Default: that of the dataset with other maps."
        ),
    ] = UNKNOWN.name,
    attribution: Annotated[
        str, typer.Option(help="Whom the card of a dataset names. Default: as that of the dataset with other maps.")
    ] = UNKNOWN.attribution,
) -> None:
    """Step 5: draw maps of the types: label TIFFs and QuPath GeoJSON of slides, or a patch dataset with new maps.

    `histoloom patches` reads the maps of slides as annotations. Damaged slides are named and skipped; the exit code is
    then 3, and the next run tries them again. Repeat the command to continue a killed run. With other --names, the maps
    are redrawn from existing predictions.
    """
    check_out(out, in_place=True)

    from functools import partial

    from histoloom.cli.progress import bar
    from histoloom.discovery.cutting import Cutting
    from histoloom.discovery.draw import SHARES, draw_maps
    from histoloom.discovery.names import name_types
    from histoloom.discovery.open_classifier import classifier_fingerprint, open_classifier
    from histoloom.discovery.parts import find_parts
    from histoloom.discovery.pseudo_maps import MapConfig
    from histoloom.discovery.pseudo_patches import Kept, count_patches, draw_patches
    from histoloom.discovery.slide_parts import SlidePart
    from histoloom.discovery.tree import TypeTree
    from histoloom.discovery.windows import is_dataset
    from histoloom.distributed import Workers
    from histoloom.errors import ConfigError

    config, mark = MapConfig(stride, smooth=smooth), classifier_fingerprint(by)
    open_predictor = partial(open_classifier, by.absolute(), allow_remote_code)  # workers may run in another folder
    tree = TypeTree.load(by)
    named = name_types(tree.ancestors, tree.levels, names)
    wanted = [named.at(count) for count in types or ()]
    if is_dataset(source):
        if slide_mpp is not None:
            raise ConfigError("--slide-mpp is for slides; a patch dataset keeps its own scale; leave it out")
        if len(wanted) > 1:
            raise ConfigError("a patch has one map; give one level with --types, and draw others into other folders")
        level = wanted[0] if wanted else named.at(None)
        with bar("maps", count_patches(source), "patches") as running:
            record = draw_patches(
                source, open_predictor, mark, named, level, config, Kept(low, high), out,
                License(license_name, attribution),
                Workers(workers, ray),
                running,
            )  # fmt: skip
        for split, count in record["counts"].items():
            typer.echo(f"{split}: {count['patches']:,} patches of {count['cases']:,} cases")
        typer.echo(
            f"wrote {out}; train on it with a recipe whose [data] names it, such as the recipe `discovered-ebhi`"
        )
        _report_skipped(record.get("failures", []), len(list((source / "data").glob("*.parquet"))), "shards")
        return
    found, notes = find_parts(source, Cutting(slide_mpp=slide_mpp))
    parts = [part for part in found if isinstance(part, SlidePart)]  # all of them: it is not a dataset
    with bar("maps", len(parts), "slides") as running:
        drawn = draw_maps(
            parts, open_predictor, mark, named, config, out, slide_mpp, tuple(types or ()), Workers(workers, ray),
            running,
        )  # fmt: skip
    for line in (*notes, *drawn.notes):
        typer.echo(line, err=True)
    typer.echo(f"wrote {out}: maps of {counted(len(drawn.slides), 'slide')}; {SHARES} has the share of each type")
    _report_skipped(drawn.failures, len(parts), "slides")


def _report_skipped(failures: list[str], count: int, unit: str) -> None:
    """Name what was skipped; where anything was, exit with the code that says so."""
    for failure in failures:
        typer.echo(f"skipped: {failure}", err=True)
    if failures:
        typer.echo(f"{len(failures)} of {count} {unit} were skipped", err=True)
        raise typer.Exit(SKIPPED)


def look(
    discovered: Annotated[Path, typer.Argument(help="Folder of `histoloom discover cluster`.")],
    out: Annotated[Path, typer.Option(help="Folder for look.html, pictures, and a draft of discovered.toml.")],
    names: Names = None,
    maps: Annotated[Path | None, typer.Option(help="Folder of `discover maps` to show with the types.")] = None,
    windows: Annotated[int, typer.Option(help="Windows per type.")] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the shown windows.")] = 0,
) -> None:
    """Step 6: show the types on one page: windows of each, their tree, maps of the slides, and shares per slide.

    Without --names, it drafts discovered.toml; edit it and give it to every later step. The page shows real tissue.
    """
    check_out(out, in_place=True)

    from histoloom.cli.progress import bar
    from histoloom.discovery.look import LookConfig
    from histoloom.discovery.look_files import write_look
    from histoloom.discovery.names import name_types
    from histoloom.discovery.tree import TypeTree

    config, tree = LookConfig(windows=windows, seed=seed), TypeTree.load(discovered)
    named = name_types(tree.ancestors, tree.levels, names)
    with bar("look", len(named.finest.types), "types") as running:
        drafted = write_look(discovered, named, config, maps, out, names is None, running)
    typer.echo(f"wrote {out / 'look.html'}")
    if drafted is not None:
        typer.echo(f"drafted {drafted}: name and merge types there, then give it with --names")
