"""`histoloom bank`: crops for `generate`, woven by a model or cut from real patches."""

from pathlib import Path
from typing import Annotated

import typer

from histoloom.cli.weave import Background, Styles, TwoTypes, given
from histoloom.errors import ConfigError
from histoloom.files import check_out
from histoloom.generation.settings import BankConfig, RealBankConfig
from histoloom.text import counted, printable


def bank(
    out: Annotated[Path, typer.Option(help="Folder to write; `generate --crops` reads it.")],
    model: Annotated[
        str | None,
        typer.Argument(
            help="Folder or hub name of a model, or a bundled one: ebhi-seg-few-steps, or its teacher ebhi-seg; "
            "not with --from."
        ),
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
    for name in given(woven if dataset else real):
        option = {"styles": "style"}.get(name, name).replace("_", "-")
        raise ConfigError(f"--{option} has no effect {'with' if dataset else 'without'} --from; leave it out")
    check_out(out)  # before libraries and model are loaded
    if dataset is not None:
        return _cut_bank(dataset, out, RealBankConfig(seed=seed, **given(real | {"keep": keep})))
    assert model is not None
    config = BankConfig(seed=seed, **given(woven | {"keep": keep}))

    from histoloom.cli.progress import bar
    from histoloom.generation.bank_folder import weave_bank_folder
    from histoloom.models.pipeline import HistoloomPipeline

    pipeline = HistoloomPipeline.load(model)
    made = weave_bank_folder(pipeline, config, out, bar)
    _say(out, len(made.sets), made.counts(pipeline.table))


def _cut_bank(dataset: Path, out: Path, config: RealBankConfig) -> None:
    from histoloom.cli.progress import bar
    from histoloom.generation.bank_folder import cut_bank_folder

    report = cut_bank_folder(dataset, config, out, bar)
    _say(out, report["sets"], report["crops"])
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(report["left_out"].items()))
    typer.echo(f"left out: {reasons or 'none'}")


def _say(out: Path, sets: int, crops: dict[str, int]) -> None:
    """Say what a bank holds, with the types of which it has no crop."""
    counts = ", ".join(f"{count} {name}" for name, count in crops.items())
    typer.echo(printable(f"wrote {counted(sets, 'set')} of crops to {out}: {counts}"))
