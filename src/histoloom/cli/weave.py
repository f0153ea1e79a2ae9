"""`histoloom demo`, `generate` and `bank`: annotated patches from a model."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from histoloom.errors import ConfigError
from histoloom.files import check_out
from histoloom.generation.settings import BankConfig, DrawnMaps, Source, WeaveConfig
from histoloom.text import printable

Model = Annotated[str, typer.Argument(help="Folder or hub name of a model, or the bundled ebhi-seg.")]
Seed = Annotated[int, typer.Option(help="Patch i has seed + i; later attempts have seeds derived from it.")]


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("woven/demo"),
    count: Annotated[int, typer.Option(help="Number of patches.")] = DrawnMaps.count,
    seed: Seed = WeaveConfig.seed,
) -> None:
    """Weave annotated patches with the bundled model, from drawn layouts and synthetic crops: no patient's pixels."""
    generate("ebhi-seg", out=out, layouts=count, seed=seed)


def generate(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    maps: Annotated[
        Path | None,
        typer.Option(help="Folder of label maps; values or colors as in tissue.toml. Default: drawn layouts."),
    ] = None,
    layouts: Annotated[
        int | None, typer.Option(help=f"Number of layouts to draw. Default: {DrawnMaps.count}.", show_default=False)
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help=f"Edge of the drawn layouts, in pixels. Default: {DrawnMaps.size}.", show_default=False),
    ] = None,
    mpp: Annotated[
        float | None, typer.Option(help="Micrometers per pixel of maps and patches. Default: those of the model.")
    ] = Source.mpp,
    crops: Annotated[
        Path | None,
        typer.Option(
            help="Folder of crops: one folder per tissue type, or one such folder per set. Default: the model's bank."
        ),
    ] = Source.crops,
    steps: Annotated[
        int | None, typer.Option(help="Steps of the sampler. Default: the sampler's usual number.")
    ] = WeaveConfig.steps,
    sampler: Annotated[
        str | None,
        typer.Option(help="unipc, dpm++, euler or heun; ddim for noise prediction. Default: the model's."),
    ] = WeaveConfig.sampler,
    map_guidance: Annotated[
        float, typer.Option(help="1 follows the map as learned, more exaggerates it, 0 ignores it.")
    ] = WeaveConfig.map_guidance,
    crop_guidance: Annotated[float, typer.Option(help="The same for crops.")] = WeaveConfig.crop_guidance,
    guidance_interval: Annotated[
        tuple[float, float],
        typer.Option(help="Shares of noise between which guidance above 1 acts; 0 1: always."),
    ] = WeaveConfig.guidance_interval,
    seed: Seed = WeaveConfig.seed,
    batch_size: Annotated[int, typer.Option(help="Patches generated at once.")] = WeaveConfig.batch_size,
    copy_limit: Annotated[
        float | None,
        typer.Option(
            help="Similarity to a crop above which a patch is woven again; 1: no limit. Default: the model's limit; "
            "no limit for the model's own bank."
        ),
    ] = WeaveConfig.copy_limit,
    tries: Annotated[
        int,
        typer.Option(
            help="Maximum attempts with new seeds; if the patch still copies a crop, the same number again using only "
            "that crop's colors."
        ),
    ] = WeaveConfig.tries,
    record_names: Annotated[
        bool,
        typer.Option(
            "--record-names",
            help="Write file names of maps and crops into the patches, instead of ids with a key file.",
        ),
    ] = Source.record_names,
) -> None:
    """Weave annotated patches: images, maps, provenance, and a contact sheet.

    Each patch is searched for parts of its crops. If one reappears, the patch is woven again, in the end with only the
    colors of that crop. Repeat the command to resume a killed run: it ends with the same bytes.
    """
    config = WeaveConfig(
        steps=steps,
        sampler=sampler,
        map_guidance=map_guidance,
        crop_guidance=crop_guidance,
        guidance_interval=guidance_interval,
        seed=seed,
        batch_size=batch_size,
        copy_limit=copy_limit,
        tries=tries,
    )
    source = Source(maps=_maps(maps, layouts, size), crops=crops, mpp=mpp, record_names=record_names)
    _generate(model, out, source, config)


def bank(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder to write; `generate --crops` reads it.")],
    tries: Annotated[int, typer.Option(help="Patches to weave and choose from.")] = BankConfig.tries,
    keep: Annotated[int, typer.Option(help="Stains to keep, as different as possible.")] = BankConfig.keep,
    seed: Annotated[int, typer.Option(help="Patch i has seed + i.")] = BankConfig.seed,
) -> None:
    """Weave a bank of crops from maps alone, so that nothing in it comes from a patient's image."""
    config = BankConfig(tries=tries, keep=keep, seed=seed)
    check_out(out)  # before libraries and model are loaded

    from histoloom.cli.progress import bar
    from histoloom.generation.bank_folder import weave_bank_folder
    from histoloom.models.pipeline import HistoloomPipeline

    pipeline = HistoloomPipeline.load(model)
    sets = weave_bank_folder(pipeline, config, out, bar)
    typer.echo(printable(f"wrote {sets} sets of crops to {out}"))


def _generate(model: str, out: Path, source: Source, config: WeaveConfig) -> None:
    check_out(out)  # before libraries and model are loaded

    from histoloom.cli.progress import bar
    from histoloom.generation.copy_report import copy_report
    from histoloom.generation.woven_folder import weave_folder
    from histoloom.models.pipeline import HistoloomPipeline

    pipeline = HistoloomPipeline.load(model)
    own_bank = source.crops is None
    if source.crops is not None and not pipeline.denoiser.reads.crops:
        raise ConfigError(f"{model}: is a model that reads no crops; leave out --crops")
    if own_bank:
        source = replace(source, crops=_bank_of(pipeline.name_or_path))
        if config.copy_limit is None:
            config = replace(config, copy_limit=1.0)  # the model's bank was woven: it holds nobody's pixels
    rows = weave_folder(pipeline, source, config, out, own_bank, bar)
    typer.echo(printable(f"wrote {len(rows)} patches to {out}; look at {out / 'contact-sheet.png'}"))
    typer.echo(copy_report(rows, own_bank))


def _maps(maps: Path | None, layouts: int | None, size: int | None) -> Path | DrawnMaps:
    """The folder of maps, or the maps to draw; raises ConfigError for an option that would have no effect."""
    if maps is None:
        given = {"count": layouts, "size": size}
        return DrawnMaps(**{name: value for name, value in given.items() if value is not None})
    for option, value in (("--layouts", layouts), ("--size", size)):
        if value is not None:
            raise ConfigError(
                f"{option} {value} has no effect with --maps, whose maps have a number and a size; leave it out"
            )
    return maps


def _bank_of(folder: str) -> Path | None:
    """The bank in the folder of a model, which is that of its download for a model on the hub."""
    path = Path(folder) / "crops"
    return path if path.is_dir() else None
