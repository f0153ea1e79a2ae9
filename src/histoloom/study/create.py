"""Make a reader study from real and synthetic images."""

import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from histoloom.evaluation.comparison import trace
from histoloom.evaluation.map_origin import with_cases
from histoloom.evaluation.sources import ImageSet, comparable, load_images, shared_images
from histoloom.files import is_finished, whole_folder, write_json, write_record
from histoloom.patches.store import splits
from histoloom.pictures import write_picture
from histoloom.progress import Progress, silent
from histoloom.records import Record
from histoloom.study.folder import FORMAT, IMAGES, KEY, STUDY, image_names
from histoloom.study.matching import ANY, Matcher
from histoloom.study.plan import DECODED, MAIN, PRACTICE, REAL, SYNTHETIC, Item, Shown, draw_items, orders
from histoloom.study.settings import StudyConfig
from histoloom.study.shortcuts import describe_shortcuts
from histoloom.text import counted

Decode = Callable[[UInt8[np.ndarray, "h w 3"]], UInt8[np.ndarray, "h w 3"]]


def load_sides(real: Path, fake: Path, split: str | None = None) -> tuple[ImageSet, ImageSet]:
    """Real and synthetic images without duplicates, of one size, scale and tissue table; raises InputError.

    The notes of the synthetic images say which are not used: real ones among them, and other splits of a dataset.
    """
    real_images = load_images(real, split)
    fake_images = with_cases(load_images(fake), [real_images])
    comparable(real_images, fake_images)
    notes = [*fake_images.notes]
    if others := [name for name in splits(fake) if fake_images.split not in ("", name)]:
        notes.append(f"{fake}: only split {fake_images.split} is used, and not {', '.join(others)}")
    if shared := set(shared_images(real_images, fake_images)):
        repeats = counted(len(shared), "image that repeats", "images that repeat")
        notes.append(f"{fake}: left out: {repeats} a real one, pixel by pixel")
        fake_images = fake_images.select([i for i in range(len(fake_images)) if i not in shared])
    return real_images.distinct(), replace(fake_images.distinct(), notes=tuple(notes))


def create_study(
    sides: tuple[ImageSet, ImageSet],
    config: StudyConfig,
    out: Path,
    decode: Decode | None = None,
    model: str = "",
    progress: Progress = silent,
) -> list[str] | None:
    """Write a study, and return lines about it; None where `out` holds it already.

    `decode` takes a real image through an autoencoder and back, whose weights have the hash `model`. Raises InputError
    where images are too few, OutputError where `out` holds anything else.
    """
    real, fake = sides
    inputs = {"real": real.fingerprint(), "fake": fake.fingerprint()} | ({"model": model} if model else {})
    record = Record(command="study create", format=FORMAT, settings=asdict(config), inputs=inputs)
    if is_finished(out, record):
        return None
    matcher = Matcher(real, fake)
    items = draw_items(matcher, config, decode is not None)
    order = orders(items, config)
    names = _names(len(items), config.seed)
    with whole_folder(out) as folder:
        with progress("images", len(items), "items") as bar:
            for item, name in zip(items, names, strict=True):
                files = image_names(name, config.is_pairs)
                for file, shown in zip(files, item.images, strict=True):
                    _write(folder / IMAGES / file, _pixels(shown, real, fake, decode))
                bar.advance()
        write_json(folder / STUDY, _for_server(items, names, order, real, config))
        write_json(folder / KEY, _key(items, names, real, fake, config))
        os.chmod(folder / KEY.parent, 0o700)
        write_record(folder, record)
    return _about(items, matcher, sides)


def _names(count: int, seed: int) -> list[str]:
    """A name per item that says nothing about it."""
    shuffled = np.random.default_rng((seed, 0)).permutation(count)
    return [f"{number:0{max(len(str(count)), 3)}d}" for number in shuffled + 1]


def _pixels(shown: Shown, real: ImageSet, fake: ImageSet, decode: Decode | None) -> UInt8[np.ndarray, "h w 3"]:
    if shown.kind == SYNTHETIC:
        return fake.images[shown.index]
    pixels = real.images[shown.index]
    return decode(pixels) if shown.kind == DECODED and decode else pixels


def _write(path: Path, pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    """Uncompressed, since smooth images make smaller files; without metadata, and with one time for all."""
    write_picture(path, Image.fromarray(np.ascontiguousarray(pixels)), compress_level=0)
    os.utime(path, (0, 0))


def _for_server(
    items: list[Item], names: list[str], order: list[list[int]], real: ImageSet, config: StudyConfig
) -> dict:
    height, width = real.images.shape[1:3]
    return {
        "format": FORMAT,
        "pairs": config.is_pairs,
        "size": [int(width), int(height)],
        "practice": sorted(name for item, name in zip(items, names, strict=True) if item.role == PRACTICE),
        "orders": {f"reader-{number}": [names[i] for i in mine] for number, mine in enumerate(order, start=1)},
    }


def _key(items: list[Item], names: list[str], real: ImageSet, fake: ImageSet, config: StudyConfig) -> dict:
    def source(shown: Shown) -> dict:
        side = fake if shown.kind == SYNTHETIC else real
        return {"kind": shown.kind, "name": side.names[shown.index], "case": side.cases[shown.index]}

    rows = {
        name: {
            "kind": item.kind,
            "role": item.role,
            "tissue": item.tissue,
            "images": [source(shown) for shown in item.images],
        }
        | ({"repeats": names[item.returns]} if item.returns >= 0 else {})
        for item, name in zip(items, names, strict=True)
    }
    return {"format": FORMAT, "pairs": config.is_pairs, "margin": config.margin, "seed": config.seed, "items": rows}


def _about(items: list[Item], matcher: Matcher, sides: tuple[ImageSet, ImageSet]) -> list[str]:
    """What a study holds, and what a reader could go by besides the tissue."""
    counted = [item for item in items if item.role == MAIN]
    kinds = sorted({item.kind for item in counted})
    lines = [", ".join(f"{sum(item.kind == kind for item in counted)} {kind}" for kind in kinds)]
    used = [shown.index for item in items for shown in item.images if shown.kind != SYNTHETIC]
    lines.append(f"real images of {len({sides[0].cases[i] for i in used})} cases")
    if unmatched := matcher.unmatched():
        shown = ", ".join(f"{name}: {number}" for name, number in sorted(unmatched.items()))
        lines.append(f"synthetic images of tissue that no real image shows are left out ({shown})")
    if matcher.fake_tissues[0] == ANY:
        lines.append("maps are not known on both sides, so images are matched by stain alone")
    real, fake = sides
    if trace(real) != trace(fake):
        lines.append(
            f"real images were kept as {real.kept_as}, synthetic ones as {fake.kept_as}: traces of a format may show"
        )
    shown = [image for item in items for image in item.images]
    mine = sorted({image.index for image in shown if image.kind == REAL})
    woven = sorted({image.index for image in shown if image.kind == SYNTHETIC})
    return lines + describe_shortcuts(real.images[mine], fake.images[woven])
