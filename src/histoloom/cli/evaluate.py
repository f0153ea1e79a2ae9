"""`histoloom evaluate`, `downstream` and `train-encoder`: is the synthetic tissue true, varied, obedient and new?"""

from hashlib import sha256
from pathlib import Path
from typing import Annotated

import typer

from histoloom.cli.discover import RemoteCode
from histoloom.cli.notes import echo_notes
from histoloom.files import check_out
from histoloom.text import printable


def evaluate(
    real: Annotated[Path, typer.Option(help="Real images: a patch dataset, or a folder of images.")],
    fake: Annotated[Path, typer.Option(help="Synthetic images: a folder of `histoloom generate`, or of images.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html and report.json.")],
    train: Annotated[
        Path | None,
        typer.Option(help="Images that the model was trained on. Default: split train of the real dataset, if any."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Split of the real dataset to compare with. Default: val, if any.")
    ] = None,
    encoder: Annotated[
        list[str] | None,
        typer.Option(help="histoloom-small (default), timm:NAME, or a name of lazyslide-models; repeatable."),
    ] = None,
    segmenter: Annotated[
        Path | None, typer.Option(help="Folder of the segmenter of a run; it reads maps off the images.")
    ] = None,
    crops: Annotated[
        Path | None,
        typer.Option(help="Crop bank that the patches were generated from; its crops are searched for, too."),
    ] = None,
    hide: Annotated[
        list[str] | None,
        typer.Option(
            help="Tissue type that all maps leave out, such as lumens: the nearest other type stands in its place. "
            "Repeatable."
        ),
    ] = None,
    most: Annotated[int, typer.Option(help="Maximum number of images per side.")] = 500,
    pairs: Annotated[int, typer.Option(help="Number of images, and of crops, to search for copied parts.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of all random choices.")] = 0,
    cache: Annotated[
        Path | None, typer.Option(help="File that keeps computed features. Default: in the user's cache folder.")
    ] = None,
    allow_remote_code: RemoteCode = False,
) -> None:
    """Measure synthetic tissue against real tissue: one page with a verdict in plain words, and every figure as JSON.

    Each figure comes with its floor: real against real, with as many images and cases. A verdict needs 50 images of
    5 cases in each set. The page shows real patches; treat it as patient data.
    """
    check_out(out)

    from histoloom.cli.progress import bar
    from histoloom.encoders.cache import check_cache, default_cache
    from histoloom.encoders.encoder import distinct_names, fingerprint, open_encoders
    from histoloom.errors import InputError
    from histoloom.evaluation.page import render_page
    from histoloom.evaluation.report import EvaluationConfig, record_of, write_report
    from histoloom.evaluation.report import evaluate as measure
    from histoloom.evaluation.segmenter import load_segmenter
    from histoloom.evaluation.sources import load_images, training_images
    from histoloom.evaluation.verdict import verdict
    from histoloom.files import is_finished, whole_folder
    from histoloom.records import read_json

    encoders = tuple(encoder or ("histoloom-small",))
    distinct_names(encoders)  # refuses one that is named twice
    config = EvaluationConfig(
        encoders=encoders,
        most=most,
        pairs=pairs,
        seed=seed,
        allow_remote_code=allow_remote_code,
        hidden=tuple(hide or ()),
    )
    real_images = load_images(real, split)
    training = training_images(train, real_images)
    judge = None if segmenter is None else load_segmenter(segmenter)
    fake_images = load_images(fake)
    echo_notes(note for side in (real_images, training, fake_images) if side for note in side.notes)
    bank = []
    if crops is not None:
        from histoloom.generation.bank import load_bank  # here: brings diffusers, which nothing else needs

        if fake_images.kind != "woven patches":
            raise InputError(f"{fake}: holds no woven patches, so none was made from {crops}; leave out --crops")
        lent = load_bank(crops.absolute(), fake_images.known_table)
        echo_notes(lent.notes)
        bank = [crop for mine in lent.sets.values() for crop in mine]
    cache = cache or default_cache()
    check_cache(cache)
    opened = open_encoders(encoders, allow_remote_code)
    more = {f"encoder {i}": one.fingerprint for i, one in enumerate(opened)}
    more |= {"segmenter": fingerprint(judge.network, "segmenter")} if judge else {}
    more |= {f"crop {crop.source}": sha256(crop.pixels.tobytes()).hexdigest() for crop in bank}
    record = record_of(real_images, fake_images, training, config, more)
    if is_finished(out, record):
        found = read_json(out / "report.json")["verdict"]
        typer.echo("\n".join([found["headline"], *found["sentences"], f"{out} is up to date"]))
        return
    with whole_folder(out) as folder:
        found = measure(real_images, fake_images, training, config, judge, cache, bar, bank)
        judged = verdict(found)
        write_report(found, render_page(found), judged, folder, record)
    headline, sentences = judged
    typer.echo("\n".join([headline, *sentences, f"wrote {out / 'report.html'} and {out / 'report.json'}"]))


def train_encoder(
    dataset: Annotated[Path, typer.Argument(help="Patch dataset; the encoder learns from its split train.")],
    out: Annotated[Path, typer.Option(help="Folder for the encoder, its card and its checkpoint.")],
    start: Annotated[
        str,
        typer.Option(help="Initial encoder: the bundled one, a folder, imagenet (downloaded by timm), or random."),
    ] = "histoloom-small",
    steps: Annotated[int, typer.Option(help="Training steps of 64 patches, about two CPU-seconds each.")] = 160,
    seed: Annotated[int, typer.Option(help="Seed of weights and views.")] = 0,
) -> None:
    """Train a small encoder on your patches without labels, and test it with a linear probe.

    The same command resumes a stopped run with the same result. `histoloom evaluate --encoder OUT` uses the encoder.
    """
    check_out(out, in_place=True)

    from dataclasses import replace

    from histoloom.cli.progress import bar
    from histoloom.encoders.barlow_twins import EncoderTraining
    from histoloom.evaluation.encoder_run import run_encoder

    default = EncoderTraining()
    config = replace(default, start=start, loop=replace(default.loop, steps=steps, seed=seed))
    probes = run_encoder(dataset, config, out, bar)
    if not probes:
        typer.echo(f"wrote {out}; there is no probe without a split val and two tissue types")
        return
    for name, probe in probes.items():
        typer.echo(
            f"linear probe on {name}: {100 * probe.accuracy:.1f} % of {probe.n} patches "
            f"[{100 * probe.low:.1f}, {100 * probe.high:.1f}], {100 * probe.balanced:.1f} % in the mean of types"
        )
    typer.echo(f"wrote {out}; use it with: histoloom evaluate --encoder {out}")


def train_judge(
    dataset: Annotated[Path, typer.Argument(help="Patch dataset; the judge learns from split train.")],
    out: Annotated[Path, typer.Option(help="Folder to write; `generate --judge` reads it.")],
    steps: Annotated[
        int | None, typer.Option(help="Training steps of 16 patches. Default: 800.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights, views, and of the cases that are held out.")] = 0,
) -> None:
    """Train a judge that checks, pixel by pixel, whether the tissue of woven patches is where their maps say.

    It learns from four fifths of split train, by case, and measures its usual loss per type on the other cases.
    """
    check_out(out)

    from dataclasses import replace

    from histoloom.cli.progress import bar
    from histoloom.evaluation.judge import train_judge as train
    from histoloom.evaluation.segmenter import SegmenterConfig

    config = replace(SegmenterConfig(seed=seed), **({} if steps is None else {"steps": steps}))
    about = train(dataset, out, config, bar)
    typer.echo(
        f"wrote {out}; loss per type on {about['held_out_patches']} patches of cases that it did not learn from:"
    )
    names = {str(row["id"]): row["name"] for row in about["tissue"]}
    for tissue, loss in about["mean_loss"].items():
        typer.echo(printable(f"  {names[tissue]}: {loss:.2f} nats"))


def downstream(
    real: Annotated[Path, typer.Option(help="Patch dataset with the splits train and val.")],
    fake: Annotated[Path, typer.Option(help="Folder of `histoloom generate`, made from maps of split train.")],
    out: Annotated[Path, typer.Option(help="File to write, such as downstream.json.")],
    steps: Annotated[int, typer.Option(help="Training steps, the same for every training set.")] = 400,
    batch_size: Annotated[int, typer.Option(help="Patches per step.")] = 8,
    seeds: Annotated[int, typer.Option(help="Networks per training set.")] = 5,
    backbone: Annotated[str, typer.Option(help="Encoder of segmentation-models-pytorch.")] = "tu-tf_efficientnet_lite0",
    start: Annotated[
        str,
        typer.Option(
            help="Weights of the backbone: random, imagenet (downloaded), histoloom-small, or a folder of "
            "`train-encoder`; the last two for backbone tu-tf_efficientnet_lite0."
        ),
    ] = "histoloom-small",
    balance: Annotated[float, typer.Option(help="0 weighs all pixels equally in training, 1 all tissue types.")] = 0.5,
    one_pool: Annotated[
        bool,
        typer.Option(
            "--one-pool",
            help="Draw real and synthetic patches from one pool, so that their numbers decide how many of each are "
            "seen. Default: half of each batch from each.",
        ),
    ] = False,
    control: Annotated[
        list[str] | None,
        typer.Option(
            help="Also train on real patches with a classic remedy for rare types: `oversampled` (repeats patches that "
            "show them) or `pasted` (pastes them over others). Repeat for both."
        ),
    ] = None,
    hide: Annotated[
        list[str] | None,
        typer.Option(
            help="Tissue type that segmenters need not tell, such as lumens: in all maps, the nearest other type "
            "stands in its place. Repeatable."
        ),
    ] = None,
) -> None:
    """Train DeepLabv3+ on real patches, on synthetic ones and on both, and test each network on the real split val.

    Networks that learned from synthetic patches are also tested as adapted: with batch norms that have taken their
    statistics from the real images of `train`. It reports the IoU of each type, their mean, and that of the commonest
    type against all others. Intervals are over test cases and seeds. The command first says how long it takes; repeat
    it to resume. With more seeds, or one control more, it trains only the networks that are new; the results of the
    others are kept in the folder `OUT.parts`. It refuses sets of different sizes or tissue tables, and training patches
    that show what a test patch shows. It does not replace the result of other settings or images.
    """
    from histoloom.cli.progress import bar
    from histoloom.evaluation.advice import confusions
    from histoloom.evaluation.downstream import DownstreamConfig
    from histoloom.evaluation.downstream_file import compare_into

    config = DownstreamConfig(
        backbone=backbone,
        start=start,
        balance=balance,
        steps=steps,
        batch_size=batch_size,
        seeds=tuple(range(seeds)),
    )
    found, is_new = compare_into(
        out,
        real,
        fake,
        config,
        bar,
        lambda line: typer.echo(line, err=True),
        tuple(control or ()),
        one_pool,
        tuple(hide or ()),
    )
    types_by_id = found.about["types"]
    names = [types_by_id.get(str(i), str(i)) for i in range(max(map(int, types_by_id)) + 1)]
    for name, result in found.results.items():
        types = ", ".join(f"{n} {result.of_type[int(i)]:.2f}" for i, n in found.about["types"].items())
        typer.echo(f"{name}: mean IoU {result.mean_iou:.3f} {_span(result.low, result.high)}; {types}")
        if mistaken := confusions(result.read_as, names):
            typer.echo(f"{name}: {'; '.join(mistaken)}")
    for name, gain in found.gains.items():
        typer.echo(f"{name}: {gain.difference:+.3f} {_span(gain.low, gain.high)}")
    if len(found.about["types"]) > 2:
        for name, result in found.ground_results.items():
            span = _span(result.low, result.high)
            typer.echo(f"{name}, {found.about['ground']} or not: mean IoU {result.mean_iou:.3f} {span}")
    typer.echo("\n".join([*found.notes, f"wrote {out}" if is_new else f"{out} is up to date"]))


def _span(low: float, high: float) -> str:
    return f"[{low:.3f}, {high:.3f}]" if low == low else "[no interval]"
