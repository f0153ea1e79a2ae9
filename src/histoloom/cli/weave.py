"""`histoloom demo`, `generate` and `bank`: annotated patches from a model."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from histoloom.cli.export import KINDS, write_export
from histoloom.distributed import Workers
from histoloom.errors import ConfigError
from histoloom.files import check_out
from histoloom.generation.dataset_order import NONE, DatasetOrder, read_order, source_of
from histoloom.generation.settings import BankConfig, CheckConfig, DrawnMaps, RealBankConfig, Source, WeaveConfig
from histoloom.text import printable

Model = Annotated[
    str,
    typer.Argument(
        help="Folder or hub name of a model, or a bundled one: ebhi-seg-few-steps, or its teacher ebhi-seg."
    ),
]
Mpp = Annotated[
    float | None, typer.Option(help="Micrometers per pixel of maps and patches. Default: those of the model.")
]
Steps = Annotated[int | None, typer.Option(help="Steps of the sampler. Default: the sampler's usual number.")]
MapGuidance = Annotated[float, typer.Option(help="1 follows the map as learned, more exaggerates it, 0 ignores it.")]
CropGuidance = Annotated[float, typer.Option(help="The same for crops.")]
GuidanceInterval = Annotated[
    tuple[float, float],
    typer.Option(help="Shares of noise between which guidance above 1 acts; 0 1: always."),
]
Background = Annotated[
    str | None,
    typer.Option(
        help="Tissue type between the others in drawn layouts. Default: stroma or another name of ground, else the "
        "first type whose name is not of a gland or tumor."
    ),
]
TwoTypes = Annotated[
    float | None,
    typer.Option(help="Share of drawn layouts with two types on the background. Default: 0.", show_default=False),
]
Styles = Annotated[
    list[str] | None,
    typer.Option(
        "--style",
        help="TYPE=STYLE draws a tissue type as crypts, glands, wide glands, villi or field; repeatable. Default: by "
        "the name of the type, else any.",
    ),
]
Seed = Annotated[int, typer.Option(help="Patch i has seed + i; later attempts have seeds derived from it.")]


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("woven/demo"),
    count: Annotated[int, typer.Option(help="Number of patches.")] = DrawnMaps.count,
    seed: Seed = WeaveConfig.seed,
) -> None:
    """Weave annotated patches with the bundled model, from drawn layouts and synthetic crops: no patient's pixels."""
    generate("ebhi-seg-few-steps", out=out, layouts=count, seed=seed)


def generate(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    order: Annotated[
        Path | None,
        typer.Option(help="Order file: number, shares of tissue types, shapes and stains of the patches; TOML."),
    ] = None,
    maps: Annotated[
        Path | None,
        typer.Option(
            help="Folder of label maps of any sizes, values or colors as in tissue.toml; or a patch dataset. Default: "
            "drawn layouts."
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the patch dataset whose maps are woven.")] = Source.split,
    layouts: Annotated[
        int | None, typer.Option(help=f"Number of layouts to draw. Default: {DrawnMaps.count}.", show_default=False)
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(help=f"Edge of the drawn layouts, in pixels. Default: {DrawnMaps.size}.", show_default=False),
    ] = None,
    background: Background = None,
    two_types: TwoTypes = None,
    style: Styles = None,
    mpp: Mpp = Source.mpp,
    crops: Annotated[
        Path | None,
        typer.Option(
            help="Folder of crops: one folder per tissue type, or one such folder per set. Default: the model's bank."
        ),
    ] = Source.crops,
    steps: Steps = WeaveConfig.steps,
    sampler: Annotated[
        str | None,
        typer.Option(help="unipc, dpm++, euler or heun; ddim for noise prediction. Default: the model's."),
    ] = WeaveConfig.sampler,
    map_guidance: MapGuidance = WeaveConfig.map_guidance,
    crop_guidance: CropGuidance = WeaveConfig.crop_guidance,
    guidance_interval: GuidanceInterval = WeaveConfig.guidance_interval,
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
    self_check: Annotated[
        bool,
        typer.Option(
            "--self-check",
            help="Replace patches that still exceed the copy limit or miss their map (--judge); drop those that "
            "cannot be replaced.",
        ),
    ] = False,
    judge: Annotated[
        Path | None,
        typer.Option(help="With --self-check: folder of `train-judge`; pixels that miss their map become unlabeled."),
    ] = None,
    kind: Annotated[
        str,
        typer.Option(
            "--as",
            help=f"Also export to another format: {KINDS}. The patches are then in OUT.woven, the export in OUT.",
            show_default=False,
        ),
    ] = "",
    workers: Annotated[int, typer.Option(help="Processes that weave; each opens the model.")] = 1,
    ray: Annotated[
        str, typer.Option(help="Ray cluster to run on: auto, ray://host:10001, or local. It must see the same folders.")
    ] = "",
) -> None:
    """Weave annotated patches: images, maps, provenance, and a contact sheet.

    Each patch is searched for parts of its crops. If one reappears, the patch is woven again, in the end with only the
    colors of that crop. Repeat the command to resume a killed run: it ends with the same bytes, whatever the number of
    workers.
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
    drawing = {"count": layouts, "size": size, "background": background, "two_types": two_types, "styles": style}
    if order is None:
        source = Source(maps=_maps(maps, drawing), split=split, crops=crops, mpp=mpp, record_names=record_names)
    else:
        given = _given(drawing | {"maps": maps, "split": split or None, "crops": crops, "mpp": mpp})
        for name in given:
            option = {"count": "layouts", "styles": "style"}.get(name, name).replace("_", "-")
            raise ConfigError(f"--{option} has no effect with --order; write it into {order}")
        source = source_of(read_order(order), record_names)
    if judge is not None and not self_check:
        raise ConfigError("--judge has no effect without --self-check; give both, or leave it out")
    check = CheckConfig(judge=judge) if self_check else None
    if not kind:
        return _generate(model, out, source, config, Workers(workers, ray), check)

    from histoloom.generation.export import check_kind

    check_kind(kind)
    check_out(out)
    woven = out.with_name(f"{out.name}.woven")
    _generate(model, woven, source, config, Workers(workers, ray), check)
    write_export(woven, kind, out)


def bank(
    out: Annotated[Path, typer.Option(help="Folder to write; `generate --crops` reads it.")],
    model: Annotated[
        str | None, typer.Argument(help="Folder or hub name of a model, or the bundled ebhi-seg; not with --from.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option("--from", help="Patch dataset from which real crops are cut.", show_default=False)
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the dataset. Default: train.", show_default=False)] = None,
    by: Annotated[
        str | None,
        typer.Option(help="Real crops: a set per case, or per cluster of stains. Default: case.", show_default=False),
    ] = None,
    per_type: Annotated[
        int | None, typer.Option(help="Real crops: crops of each type in a set. Default: 4.", show_default=False)
    ] = None,
    tries: Annotated[
        int | None,
        typer.Option(
            help=f"Woven crops: patches to weave and choose from. Default: {BankConfig.tries}.", show_default=False
        ),
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option(
            help=f"Sets to keep, as different as possible. Default: {BankConfig.keep} woven, every case, "
            f"{RealBankConfig.clusters} clusters.",
            show_default=False,
        ),
    ] = None,
    background: Background = None,
    two_types: TwoTypes = None,
    style: Styles = None,
    mpp: Annotated[
        float | None, typer.Option(help="Micrometers per pixel of the layouts. Default: those of the model.")
    ] = BankConfig.mpp,
    seed: Annotated[
        int, typer.Option(help="Woven patch i has seed + i; places of real crops follow from it.")
    ] = BankConfig.seed,
) -> None:
    """Make a bank of crops: woven from maps alone, so that nothing in it comes from a patient's image, or real ones.

    With --from, crops are cut from the patches of a dataset, and those without texture, of glass, out of focus or near
    another are left out. Real crops are patients' pixels: protect the bank as you protect its source.
    """
    woven = {"tries": tries, "background": background, "two_types": two_types, "styles": style, "mpp": mpp}
    real = {"split": split, "by": by, "per_type": per_type}
    if (model is None) == (dataset is None):
        raise ConfigError("give a model that weaves the crops, or --from with a dataset that they are cut from")
    for name in _given(woven if dataset else real):
        option = {"styles": "style"}.get(name, name).replace("_", "-")
        raise ConfigError(f"--{option} has no effect {'with' if dataset else 'without'} --from; leave it out")
    check_out(out)  # before libraries and model are loaded
    if dataset is not None:
        return _cut_bank(dataset, out, RealBankConfig(seed=seed, **_given(real | {"keep": keep})))
    assert model is not None
    config = BankConfig(seed=seed, **_given(woven | {"keep": keep}))

    from histoloom.cli.progress import bar
    from histoloom.generation.bank_folder import weave_bank_folder
    from histoloom.models.pipeline import HistoloomPipeline

    pipeline = HistoloomPipeline.load(model)
    sets = weave_bank_folder(pipeline, config, out, bar)
    typer.echo(printable(f"wrote {sets} sets of crops to {out}"))


def _cut_bank(dataset: Path, out: Path, config: RealBankConfig) -> None:
    from histoloom.cli.progress import bar
    from histoloom.generation.bank_folder import cut_bank_folder

    report = cut_bank_folder(dataset, config, out, bar)
    crops = ", ".join(f"{count} {name}" for name, count in report["crops"].items())
    typer.echo(printable(f"wrote {report['sets']} sets of crops to {out}: {crops}"))
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report["left_out"].items()))
    typer.echo(f"left out: {reasons or 'none'}")


def _generate(
    model: str, out: Path, source: Source, config: WeaveConfig, workers: Workers, check: CheckConfig | None
) -> None:
    check_out(out)  # before libraries and model are loaded

    from histoloom.cli.progress import bar
    from histoloom.generation.copy_report import check_report, copy_report
    from histoloom.generation.delivered import describe_delivered
    from histoloom.generation.woven_folder import weave_folder
    from histoloom.generation.woven_reader import iter_index
    from histoloom.models.pipeline import HistoloomPipeline

    checking = None
    if check is not None:
        from histoloom.evaluation.judge import load_judge
        from histoloom.generation.self_check import Checking

        if check.judge is not None:
            load_judge(check.judge)  # a folder that holds none is found before the model is loaded
        checking = Checking(check, load_judge)
    pipeline = HistoloomPipeline.load(model)
    wants_none = isinstance(source.maps, DatasetOrder) and source.maps.crops == NONE
    own_bank = source.crops is None and not wants_none
    if source.crops is not None and not pipeline.denoiser.reads.crops:
        raise ConfigError(f"{model}: is a model that reads no crops; leave out --crops")
    if own_bank:
        source = replace(source, crops=bank_of(pipeline.name_or_path))
        if config.copy_limit is None:
            config = replace(config, copy_limit=1.0)  # the model's bank was woven: it holds nobody's pixels
    if source.stains and source.crops is None:
        raise ConfigError("stains name sets of a crop bank, and the model has none; give crops in the order")
    count = weave_folder(pipeline, source, config, out, own_bank, bar, workers, checking)
    typer.echo(printable(f"wrote {count} patches to {out}; look at {out / 'contact-sheet.png'}"))
    typer.echo(copy_report(iter_index(out), own_bank))
    if check is not None:
        typer.echo(check_report(out))
    if report := describe_delivered(out):
        typer.echo("\n".join(map(printable, report.splitlines())))


def _maps(maps: Path | None, drawing: dict[str, Any]) -> Path | DrawnMaps:
    """The folder of maps, or the maps to draw; raises ConfigError for an option that would have no effect."""
    given = _given(drawing)
    if maps is None:
        return DrawnMaps(**given)
    for name in given:
        option = {"count": "layouts", "styles": "style"}.get(name, name).replace("_", "-")
        raise ConfigError(f"--{option} has no effect with --maps, whose maps have a number and a size; leave it out")
    return maps


def _given(drawing: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, with styles as pairs."""
    given = {name: value for name, value in drawing.items() if value is not None}
    if styles := given.pop("styles", None):
        given["styles"] = tuple(_style(text) for text in styles)
    return given


def _style(text: str) -> tuple[str, str]:
    tissue, _, style = text.rpartition("=")
    if not tissue:
        raise ConfigError(f"--style {text!r} names no style; write it as TYPE=STYLE, such as 'normal gland=crypts'")
    return tissue.strip(), style.strip()


def bank_of(folder: str) -> Path | None:
    """The bank in the folder of a model, which is that of its download for a model on the hub."""
    path = Path(folder) / "crops"
    return path if path.is_dir() else None
