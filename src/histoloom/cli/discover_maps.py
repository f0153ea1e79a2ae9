"""`histoloom discover classify`, `maps` and `look`: from types to maps of all slides, and a look at both."""

from pathlib import Path
from typing import Annotated

import typer

Names = Annotated[
    Path | None, typer.Option(help="discovered.toml: names, colours and merges of types; `look` drafts one.")
]


def classify(
    discovered: Annotated[Path, typer.Argument(help="Folder of `histoloom discover cluster`.")],
    out: Annotated[Path, typer.Option(help="Folder for the classifier, its card and its checkpoint.")],
    steps: Annotated[int, typer.Option(help="Training steps.")] = 2000,
    batch_size: Annotated[int, typer.Option(help="Windows per step.")] = 64,
    input_size: Annotated[int, typer.Option("--input", help="Pixels to which a window is brought.")] = 96,
    depth: Annotated[int, typer.Option(help="Blocks of the vision transformer.")] = 6,
    val_share: Annotated[float, typer.Option(help="Share of windows to test on, drawn by case.")] = 0.2,
    seed: Annotated[int, typer.Option(help="Seed of weights, windows and split.")] = 0,
) -> None:
    """Step 4: train a small classifier that names types without the encoder, and say how well it does on unseen cases.

    The same command goes on after a stop, with the same result. `histoloom discover maps --by OUT` uses it.
    """
    from dataclasses import replace

    from histoloom.cli.progress import bar
    from histoloom.discovery.classifier import ClassifierConfig, check_encoder, save_classifier
    from histoloom.discovery.distill import Distillation, distill
    from histoloom.discovery.distill_report import draw_tested, examine, write_answers, write_card
    from histoloom.discovery.embed import read_record
    from histoloom.discovery.tree import TypeTree
    from histoloom.discovery.windows import open_windows, read_assigned
    from histoloom.encoders.encoder import open_encoder
    from histoloom.fitting.loop import show_on

    default = Distillation()
    model = ClassifierConfig(input=input_size, depth=depth)
    loop = replace(default.loop, steps=steps, batch_size=batch_size, seed=seed)
    config = Distillation(val_share, model=model, loop=loop)
    tree, assigned = TypeTree.load(discovered), read_assigned(discovered)
    read, window = open_windows(discovered)
    encoder = open_encoder(read_record(discovered)[1].encoder)
    check_encoder(tree, encoder)
    with bar("classifier", steps, "steps") as running:
        classifier = distill(assigned, tree, read, window, config, out, show_on(running))
    save_classifier(classifier, out)
    with bar("testing", len(draw_tested(assigned, config)), "windows") as running:
        found, answers = examine(classifier, encoder, assigned, read, config, running.advance)
    write_answers(answers, out)
    write_card(found, out)
    typer.echo(found.table())
    typer.echo(found.cost_line())
    typer.echo(f"wrote {out}; draw maps with: histoloom discover maps SLIDES --by {out} --out maps")


def maps(
    source: Annotated[Path, typer.Argument(help="A slide, a folder of slides, or a patch dataset.")],
    by: Annotated[
        Path, typer.Option(help="Folder of `discover classify`, or of `discover cluster` to ask the encoder itself.")
    ],
    out: Annotated[Path, typer.Option(help="Folder of the maps, or of the new patch dataset.")],
    types: Annotated[
        list[int] | None,
        typer.Option(help="Level by its number of types; repeatable. Default: all; of a dataset, the finest."),
    ] = None,
    names: Names = None,
    stride: Annotated[
        int | None, typer.Option(help="Pixels from one window to the next. Default: a quarter of a window.")
    ] = None,
    smooth: Annotated[float, typer.Option(help="Sigma over votes, in strides.")] = 1.0,
    low: Annotated[float, typer.Option(help="Of a dataset: least share of the most common type on a patch.")] = 0.0,
    high: Annotated[float, typer.Option(help="Of a dataset: largest share; 0.2 and 0.8 are the paper's rule.")] = 1.0,
    slide_mpp: Annotated[
        float | None, typer.Option(help="Micrometres per level-0 pixel, for slides that do not say it themselves.")
    ] = None,
    workers: Annotated[
        int, typer.Option(help="Processes, a slide or a shard of a dataset each; maps do not depend on it.")
    ] = 1,
    ray: Annotated[
        str, typer.Option(help="Address of a Ray cluster to run on: auto, ray://host:10001, or local.")
    ] = "",
    license_name: Annotated[
        str, typer.Option("--license", help="Licence for the card of a dataset, such as cc-by-4.0.")
    ] = "unknown",
) -> None:
    """Step 5: draw maps of the types: label TIFFs and QuPath GeoJSON of slides, or a patch dataset with new maps.

    `histoloom patches` takes the maps of slides as annotations. Broken slides are named and skipped, and the exit code
    is then 3. A killed run goes on when repeated; other names redraw maps without naming any window again.
    """
    from functools import partial

    import pyarrow.parquet as pq

    from histoloom.cli.progress import bar
    from histoloom.cli.slides import SKIPPED
    from histoloom.discovery.draw import SHARES, draw_maps
    from histoloom.discovery.namers import namer_print, open_namer
    from histoloom.discovery.names import name_types
    from histoloom.discovery.parts import Cutting, find_parts
    from histoloom.discovery.pseudo_maps import MapConfig
    from histoloom.discovery.pseudo_patches import Kept, draw_patches
    from histoloom.discovery.tree import TypeTree
    from histoloom.discovery.windows import is_dataset
    from histoloom.distributed import Workers
    from histoloom.errors import ConfigError

    config, mark = MapConfig(stride, smooth=smooth), namer_print(by)
    open_names = partial(open_namer, by.absolute())  # workers may stand in another folder
    tree = TypeTree.load(by)
    named = name_types(tree.ancestors, tree.levels, names)
    wanted = [named.at(count) for count in types or ()]
    if is_dataset(source):
        if len(wanted) > 1:
            raise ConfigError("a patch has one map; name one level with --types, and draw others into other folders")
        level = wanted[0] if wanted else named.at(None)
        total = sum(pq.ParquetFile(shard).metadata.num_rows for shard in (source / "data").glob("*.parquet"))
        with bar("maps", total, "patches") as running:
            record = draw_patches(
                source, open_names, mark, named, level, config, Kept(low, high), out, license_name,
                Workers(workers, ray),
                running.advance,
            )  # fmt: skip
        for split, count in record["counts"].items():
            typer.echo(f"{split}: {count['patches']:,} patches of {count['cases']:,} cases")
        typer.echo(
            f"wrote {out}; train on it with a recipe whose [data] names it, such as recipes/discovered-ebhi.toml"
        )
        return
    parts, notes = find_parts(source, Cutting(slide_mpp=slide_mpp))
    with bar("maps", len(parts), "slides") as running:
        drawn = draw_maps(
            parts, open_names, mark, named, config, out, slide_mpp, tuple(types or ()), Workers(workers, ray),
            running.advance,
        )  # fmt: skip
    for line in (*notes, *(f"skipped: {failure}" for failure in drawn.failures)):
        typer.echo(line, err=True)
    typer.echo(f"wrote {out}: maps of {len(drawn.slides)} slides; {SHARES} has the part of each type")
    if drawn.failures:
        typer.echo(f"{len(drawn.failures)} of {len(parts)} slides were skipped", err=True)
        raise typer.Exit(SKIPPED)


def look(
    discovered: Annotated[Path, typer.Argument(help="Folder of `histoloom discover cluster`.")],
    out: Annotated[Path, typer.Option(help="Folder for look.html, pictures, and a draft of discovered.toml.")],
    names: Names = None,
    maps: Annotated[Path | None, typer.Option(help="Folder of `discover maps`, to show with the types.")] = None,
    windows: Annotated[int, typer.Option(help="Windows of each type.")] = 12,
    seed: Annotated[int, typer.Option(help="Seed of the windows that are shown.")] = 0,
) -> None:
    """Step 6: show the types on one page: windows of each, their tree, maps over the slides, and shares per slide.

    Without --names it drafts discovered.toml, to be edited and given to every later step. The page shows real tissue.
    """
    from histoloom.cli.progress import bar
    from histoloom.discovery.look import LookConfig
    from histoloom.discovery.look_files import write_look
    from histoloom.discovery.names import name_types
    from histoloom.discovery.tree import TypeTree
    from histoloom.discovery.windows import open_windows, read_assigned

    tree = TypeTree.load(discovered)
    named = name_types(tree.ancestors, tree.levels, names)
    read, _ = open_windows(discovered)
    with bar("look", len(named.finest.types), "types") as running:
        drafted = write_look(
            named, read_assigned(discovered), read, LookConfig(windows, seed), maps, out, names is None, running.advance
        )
    typer.echo(f"wrote {out / 'look.html'}")
    if drafted is not None:
        typer.echo(f"drafted {drafted}: name and merge types there, then give it with --names")
