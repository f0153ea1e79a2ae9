"""`histoloom study`: a blinded reader study, from its size to its report."""

from pathlib import Path
from typing import Annotated

import typer

from histoloom.cli.notes import echo_notes
from histoloom.files import check_out

Out = Annotated[Path, typer.Option(help="Folder for the study.")]


def size(
    margin: Annotated[float, typer.Option(help="Readers cannot tell where the interval of the AUC is below it.")] = 0.6,
    auc: Annotated[float, typer.Option(help="True AUC of the mean reader; 0.5 is guessing.")] = 0.5,
    power: Annotated[float, typer.Option(help="Wanted share of studies that find that readers cannot tell.")] = 0.8,
    reader_variance: Annotated[
        float, typer.Option(help="Variance of readers' separation of real and synthetic, in units of scores.")
    ] = 0.01,
    shared: Annotated[float, typer.Option(help="Share of the variance of scores that readers have in common.")] = 0.4,
    studies: Annotated[int, typer.Option(help="Simulated studies per design.")] = 400,
    seed: Annotated[int, typer.Option(help="Seed of the simulation.")] = 0,
) -> None:
    """Estimate how many readers and items a study needs, by simulation (Roe and Metz 1997).

    Prints the power of designs of 3 to 12 readers, each with ever more items until the power is reached.
    """
    from histoloom.cli.progress import bar
    from histoloom.readers.simulation import RoeMetz
    from histoloom.study.size import designs, smallest

    model = RoeMetz(auc=auc, reader=reader_variance, case=shared)
    found = designs(model, margin, power, studies, seed, bar)
    for design in found:
        typer.echo(f"{design.readers} readers, {design.n} items: power {design.power:.2f}")
    best = smallest(found, power)
    if best is None:
        typer.echo(f"no design of up to {found[-1].readers} readers reaches a power of {power}; widen the margin")
    else:
        typer.echo(f"fewest answers: {best.readers} readers with --n {best.n}")


def create(
    real: Annotated[Path, typer.Option(help="Real images: a patch dataset, or a folder of images.")],
    fake: Annotated[Path, typer.Option(help="Synthetic images: a folder of `histoloom generate`, or of images.")],
    out: Out,
    n: Annotated[int, typer.Option(help="Items that count, half of them real; with --mode pairs, pairs.")] = 120,
    readers: Annotated[int, typer.Option(help="Number of readers.")] = 5,
    mode: Annotated[
        str, typer.Option(help="single: is this image real or synthetic?; pairs: which of two is real?")
    ] = "single",
    margin: Annotated[
        float, typer.Option(help="Readers cannot tell where the interval of the AUC is below it; recorded now.")
    ] = 0.6,
    model: Annotated[
        str | None, typer.Option(help="Model whose autoencoder decodes real images as controls. Default: none.")
    ] = None,
    controls: Annotated[float, typer.Option(help="Controls of each kind, as a share of n.")] = 0.1,
    repeats: Annotated[float, typer.Option(help="Items that return later, as a share of n.")] = 0.1,
    practice: Annotated[int, typer.Option(help="Practice items, which do not count.")] = 4,
    split: Annotated[str | None, typer.Option(help="Split of the real dataset. Default: val, if any.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of all random choices.")] = 0,
) -> None:
    """Make a blinded reader study: images matched by tissue and stain, in another order for each reader.

    The study shows real patches; treat it as patient data. key/key.json says what each item is; the server never
    reads it.
    """
    check_out(out)

    from histoloom.cli.progress import bar
    from histoloom.study.create import create_study, load_sides
    from histoloom.study.settings import StudyConfig

    config = StudyConfig(
        n=n, readers=readers, mode=mode, margin=margin, controls=controls, repeats=repeats, practice=practice, seed=seed
    )
    decoder = None
    if model is not None:
        from histoloom.study.decoding import Decoder
        from histoloom.weights import find_model

        decoder = Decoder(find_model(model))
    sides = load_sides(real, fake, split)
    echo_notes(note for side in sides for note in side.notes)
    lines = create_study(sides, config, out, decoder, decoder.fingerprint if decoder else "", bar)
    if lines is None:
        typer.echo(f"{out} is up to date")
        return
    typer.echo("\n".join([*lines, f"wrote {out}; start it with: histoloom study serve {out}"]))


def serve(
    study: Annotated[Path, typer.Argument(help="Folder of `histoloom study create`.")],
    host: Annotated[str, typer.Option(help="Address to serve at; the default is reached from this machine only.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="Port to serve at; 0 takes a free one.")] = 8765,
    name: Annotated[
        str, typer.Option(help="Name by which browsers reach the server through a proxy, such as study.example.org.")
    ] = "",
    new_token: Annotated[
        list[str] | None, typer.Option(help="Reader whose token is made again, such as reader-2; repeatable.")
    ] = None,
) -> None:
    """Serve a study to its readers in the browser, until Ctrl-C.

    The first start prints a token for each reader, once. Every answer is on the disk before the next item is shown, so
    the server may be stopped at any time. The server never reads key/key.json.
    """
    from histoloom.study.serving import serve_study

    serve_study(study, host, port, typer.echo, tuple(new_token or ()), name)


def report(
    study: Annotated[Path, typer.Argument(help="Folder of `histoloom study create`.")],
    out: Annotated[Path | None, typer.Option(help="Folder for the report. Default: STUDY/report.")] = None,
    key: Annotated[Path | None, typer.Option(help="Key of the study. Default: STUDY/key/key.json.")] = None,
) -> None:
    """Report a study: can readers tell? One HTML page, and every figure and answer as CSV and JSON.

    Readers cannot tell only where the interval of the AUC is below the margin that was recorded at creation. A report
    replaces the one before. It says what each item is: keep it from readers who have not finished.
    """
    folder = out or study / "report"
    check_out(folder)

    from histoloom.study.report import sentence, write_report

    analysis = write_report(study, folder, key)
    typer.echo("\n".join([sentence(analysis), *analysis.notes, f"wrote {folder / 'report.html'}"]))
