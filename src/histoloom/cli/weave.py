"""`histoloom demo` and `generate`: annotated patches from a model."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from histoloom.cli.export import KINDS, write_export
from histoloom.cli.notes import echo_notes
from histoloom.errors import ConfigError
from histoloom.files import check_out
from histoloom.generation.dataset_order import NONE, DatasetOrder, read_order, source_of
from histoloom.generation.settings import CheckConfig, DrawnMaps, Source, WeaveConfig
from histoloom.text import counted, printable

if TYPE_CHECKING:
    from histoloom.distributed import Workers
    from histoloom.generation.bank import CropBank
    from histoloom.models.pipeline import HistoloomPipeline

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
    only: Annotated[
        list[str] | None,
        typer.Option(help="With --maps: weave only maps that show this tissue type; repeatable."),
    ] = None,
    per_map: Annotated[int, typer.Option(help="With --maps: patches per map.")] = Source.per_map,
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
            help="Folder of crops: one folder per tissue type, or one such folder per set. Or the dataset of --maps: "
            "crops come from other patches of the case of each map. Default: the model's bank."
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
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Weave a few patches, print what the rest costs in time and disk, and write nothing."
        ),
    ] = False,
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
    workers (in fp32, if OMP_NUM_THREADS=1 is set).
    """
    from histoloom.distributed import Workers

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
        source = Source(
            maps=_maps(maps, drawing),
            split=split,
            only=tuple(only or ()),
            per_map=per_map,
            crops=crops,
            mpp=mpp,
            record_names=record_names,
        )
    else:
        asked = given(
            drawing
            | {"maps": maps, "split": split or None, "crops": crops, "mpp": mpp}
            | {"only": only, "per_map": per_map if per_map != Source.per_map else None}
        )
        for name in asked:
            option = {"count": "layouts", "styles": "style"}.get(name, name).replace("_", "-")
            raise ConfigError(f"--{option} has no effect with --order; write it into {order}")
        source = source_of(read_order(order), record_names)
    if judge is not None and not self_check:
        raise ConfigError("--judge has no effect without --self-check; give both, or leave it out")
    check = CheckConfig(judge=judge) if self_check else None
    woven = out
    if kind:
        from histoloom.generation.export import check_export

        check_export(kind, out)
        woven = out.with_name(f"{out.name}.woven")
    _generate(model, woven, source, config, Workers(workers, ray), check, plan)
    if plan and kind:
        typer.echo("not measured: the export")
    elif kind:
        write_export(woven, kind, out)


def _generate(
    model: str,
    out: Path,
    source: Source,
    config: WeaveConfig,
    workers: "Workers",
    check: CheckConfig | None,
    plan: bool,
) -> None:
    check_out(out)  # before libraries and model are loaded

    from histoloom.cli.progress import bar
    from histoloom.generation.copy_report import check_report, copy_report, crop_report
    from histoloom.generation.delivered import describe_delivered
    from histoloom.generation.orders import left_out
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
    if plan:
        from histoloom.generation.plan import describe, plan_folder

        typer.echo(describe(plan_folder(pipeline, source, config, out, own_bank, checking)))
        echo_notes(left_out(source, pipeline.table))
        return
    count = weave_folder(pipeline, source, config, out, own_bank, bar, workers, checking)
    echo_notes(left_out(source, pipeline.table))
    typer.echo(printable(f"wrote {counted(count, 'patch')} to {out}; look at {out / 'contact-sheet.png'}"))
    if source.crops is not None and (report := crop_report(iter_index(out))):
        typer.echo(report, err=True)
    typer.echo(copy_report(iter_index(out), own_bank))
    if check is not None:
        typer.echo(check_report(out))
    if report := describe_delivered(out):
        typer.echo("\n".join(map(printable, report.splitlines())))


def _maps(maps: Path | None, drawing: dict[str, Any]) -> Path | DrawnMaps:
    """The folder of maps, or the maps to draw; raises ConfigError for an option that would have no effect."""
    asked = given(drawing)
    if maps is None:
        return DrawnMaps(**asked)
    for name in asked:
        option = {"count": "layouts", "styles": "style"}.get(name, name).replace("_", "-")
        raise ConfigError(f"--{option} has no effect with --maps, whose maps have a number and a size; leave it out")
    return maps


def given(drawing: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, with styles as pairs."""
    asked = {name: value for name, value in drawing.items() if value is not None}
    if styles := asked.pop("styles", None):
        asked["styles"] = tuple(_style(text) for text in styles)
    return asked


def _style(text: str) -> tuple[str, str]:
    tissue, _, style = text.rpartition("=")
    if not tissue:
        raise ConfigError(f"--style {text!r} names no style; write it as TYPE=STYLE, such as 'normal gland=crypts'")
    return tissue.strip(), style.strip()


def open_bank(crops: Path | None, pipeline: "HistoloomPipeline") -> "CropBank":
    """The bank in `crops`, else that of a model; an empty one where there is none. Says what is left out."""
    from histoloom.generation.bank import CropBank, load_bank

    folder = crops or (bank_of(pipeline.name_or_path) if pipeline.denoiser.reads.crops else None)
    bank = load_bank(folder, pipeline.table) if folder is not None else CropBank({})
    echo_notes(bank.notes)
    return bank


def bank_of(folder: str) -> Path | None:
    """The bank in the folder of a model, which is that of its download for a model on the hub."""
    path = Path(folder) / "crops"
    return path if path.is_dir() else None
