"""`histoloom demo`, `generate` and `bank`: annotated patches from a model."""

from pathlib import Path
from typing import Annotated

import typer

Steps = Annotated[int | None, typer.Option(help="Steps of the sampler. Default: what the sampler usually takes.")]
Sampler = Annotated[str | None, typer.Option(help="unipc, dpm++, euler, heun; ddim for noise prediction.")]
MapGuidance = Annotated[float, typer.Option(help="1 follows the map as learned, more exaggerates, 0 leaves it out.")]
CropGuidance = Annotated[float, typer.Option(help="The same for crops.")]
GuidanceInterval = Annotated[
    tuple[float, float],
    typer.Option(help="Shares of noise between which guidance above 1 acts; 0 1: always."),
]
Seed = Annotated[int, typer.Option(help="Patch i has seed + i, and a later try one that follows from it.")]


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("woven/demo"),
    count: Annotated[int, typer.Option(help="Patches to weave.")] = 16,
    seed: Seed = 0,
) -> None:
    """Weave annotated patches with the bundled model, from drawn layouts and woven crops: no patient's pixels."""
    generate("ebhi-seg", out=out, layouts=count, seed=seed)


def generate(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a model, or the bundled ebhi-seg.")],
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    maps: Annotated[
        Path | None, typer.Option(help="Folder of label maps; values or colours as in tissue.toml.")
    ] = None,
    layouts: Annotated[int, typer.Option(help="Without maps: number of layouts to draw.")] = 16,
    size: Annotated[int, typer.Option(help="Edge of the drawn layouts in pixels.")] = 224,
    crops: Annotated[
        Path | None, typer.Option(help="Crops: DIR/TISSUE/*.png or DIR/SET/TISSUE/*.png. Default: the model's bank.")
    ] = None,
    steps: Steps = None,
    sampler: Sampler = None,
    map_guidance: MapGuidance = 1.5,
    crop_guidance: CropGuidance = 3.0,
    guidance_interval: GuidanceInterval = (0.4, 0.9),
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(help="Patches woven at once.")] = 8,
    copy_limit: Annotated[
        float | None,
        typer.Option(
            help="Likeness to a crop above which a patch is woven again. Default: the model's; for its bank none."
        ),
    ] = None,
    tries: Annotated[
        int,
        typer.Option(
            help="Times that a patch is woven with its crops; as often again with the colours of those it stays like."
        ),
    ] = 6,
) -> None:
    """Weave annotated patches: images, maps, provenance, and a contact sheet.

    Each patch is searched for parts of its crops, and woven again where one reappears, at last from its colours
    alone. A killed run goes on with the same command, and ends with the same bytes.
    """
    from histoloom.cli.progress import bar
    from histoloom.generation.orders import Source, place_orders, told_of_copies, weave_folder
    from histoloom.generation.patches import WeaveConfig
    from histoloom.models.pipeline import HistoloomPipeline
    from histoloom.weights import find_model

    folder = find_model(model)
    pipeline = HistoloomPipeline.load(folder)
    source = Source(maps, layouts, size, crops or _bank_of(folder))
    if copy_limit is None and crops is None:
        copy_limit = 1.0  # the model's bank was woven: it holds nobody's pixels
    guidance = (map_guidance, crop_guidance, guidance_interval)
    config = WeaveConfig(steps, sampler, *guidance, seed, batch_size, copy_limit, tries)
    orders = place_orders(source, pipeline.table, seed)
    with bar("weaving", len(orders), "patches") as running:
        rows = weave_folder(pipeline, orders, source, config, out, model, running.advance)
    typer.echo(f"wrote {len(rows)} patches to {out}; look at {out / 'contact-sheet.png'}")
    typer.echo(told_of_copies(rows))


def bank(
    model: Annotated[str, typer.Argument(help="Folder or hub name of a model, or the bundled ebhi-seg.")],
    out: Annotated[Path, typer.Option(help="Folder to write; `generate --crops` reads it.")],
    tries: Annotated[int, typer.Option(help="Patches to weave and choose from.")] = 96,
    keep: Annotated[int, typer.Option(help="Stains to keep, as different as can be.")] = 24,
    seed: Annotated[int, typer.Option(help="Patch i has seed + i.")] = 0,
) -> None:
    """Weave a bank of crops from the map alone, so that nothing in it comes from a patient's image."""
    from histoloom.cli.progress import bar
    from histoloom.files import whole_folder
    from histoloom.generation.bank import BankConfig, save_bank, weave_bank
    from histoloom.generation.layouts import LayoutConfig, draw_layouts
    from histoloom.models.pipeline import HistoloomPipeline
    from histoloom.weights import find_model

    config = BankConfig(tries, keep, seed)
    pipeline = HistoloomPipeline.load(find_model(model))
    layouts = draw_layouts(LayoutConfig(two_types=0.0), pipeline.table, tries, seed, 224)
    with bar("weaving crops", tries, "patches") as running:
        done = [0]

        def report(count: int, _: int) -> None:
            running.advance(count - done[0])
            done[0] = count

        woven = weave_bank(pipeline, list(layouts), config, report)
    with whole_folder(out) as aside:
        save_bank(woven, pipeline.table, aside)
    typer.echo(f"wrote {len(woven.sets)} sets of crops to {out}")


def _bank_of(folder: Path | str) -> Path | None:
    path = Path(folder) / "crops"
    return path if path.is_dir() else None
