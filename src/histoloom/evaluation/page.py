"""The report as one HTML page, by a template that escapes whatever names and notes hold."""

from pathlib import Path

import jinja2
import numpy as np

from histoloom.evaluation.comparison import SIDES
from histoloom.evaluation.measures import EncoderFigures
from histoloom.evaluation.plots import bars, feature_map, inline, picture, scores
from histoloom.evaluation.report import Evaluation
from histoloom.evaluation.verdict import encoder_note, verdict
from histoloom.text import counted
from histoloom.version import VERSION

SHOWN = 6  # pairs, suspects, best and worst patches
MEANINGS = {
    "reference": "real images that both others are compared with",
    "control": "real images of other cases: the floor",
    "fake": "synthetic images",
    "train": "images that copies are searched in",
}
READ_AS = {
    "Fréchet distance": "how far apart are the clouds? compare with the floor",
    "Fréchet, n to infinity": "the same, for any number of images; compare by the difference",
    "MIND": "the same along random lines; steady at small n, compare with the floor",
    "KID x 1000": "how far apart are the clouds, unbiased at small n? compare by the difference",
    "MMD (RBF) x 1000": "as KID, with a kernel as wide as the distance of real images",
    "precision": "are synthetic images among real ones? 1: all are",
    "density": "as precision, by how many real ones each is among",
    "recall": "do real images have similar synthetic ones? 1: all do",
    "coverage": "as recall, robust to outlying synthetic images",
    "C2ST accuracy": "can a classifier tell them apart? 0.5 is guessing; of the classifiers as fitted",
    "AuthPct": "% that keep their distance from training images; far below the floor: copies",
    "nearest training image": "median distance to it; far below the floor: copies",
    "mean IoU": "does a segmenter find the map? 1: every pixel",
    "mean Dice": "as mean IoU, by another measure of overlap",
    "color drift (delta E)": "mean colors; 2 is just visible",
}


def render_page(evaluation: Evaluation) -> str:
    """The whole page as text."""
    headline, sentences = verdict(evaluation)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"number": _number, "inline": inline, "picture": lambda image: inline(picture(image))}
    return environment.get_template("report.html.jinja").render(
        evaluation=evaluation,
        sets=evaluation.sets,
        headline=headline,
        answers=[sentence.split("? ", 1) for sentence in sentences],
        warnings=_warnings(evaluation),
        sides=[_side(evaluation, side) for side in SIDES],
        encoders=[_encoder(encoder) for encoder in evaluation.encoders],
        copying=_copying(evaluation),
        crops=_crops(evaluation),
        ranked=_best_and_worst(evaluation),
        made=_how_made(evaluation),
        read_as=READ_AS,
        span=_span,
    )


def _warnings(evaluation: Evaluation) -> list[str]:
    lines = []
    if evaluation.shared:
        names = ", ".join(evaluation.shared[:10]) + (" ..." if len(evaluation.shared) > 10 else "")
        are = counted(len(evaluation.shared), "synthetic image is a real one", "synthetic images are real ones")
        lines.append(f"{are}, pixel by pixel: {names}.")
    return lines + [
        counted(
            count,
            f"{side} image repeats another one, and counts once.",
            f"{side} images repeat another one, and count once.",
        )
        for side, count in evaluation.duplicates.items()
        if count
    ]


def _side(evaluation: Evaluation, side: str) -> dict:
    images = getattr(evaluation.sets, side)
    height, width = images.images.shape[1:3]
    split = f", split {images.split}" if images.split else ""
    return {
        "meaning": MEANINGS[side],
        "images": len(images),
        "cases": len(set(images.cases)),
        "kind": f"{images.kind}{split}, {images.kept_as}",
        "size": f"{width} x {height} px",
        "folder": images.label,
    }


def _encoder(encoder: EncoderFigures) -> dict:
    by_type = None
    if encoder.of_type:
        titles = [f.name for f in max(encoder.of_type.values(), key=len)]
        by_type = {"titles": titles, "rows": encoder.of_type}
    return {
        "figures": encoder,
        "note": encoder_note(encoder),
        "bars": bars(encoder),
        "scores": scores(encoder.two_sample) if encoder.two_sample else None,
        "map": feature_map(encoder.features),
        "by_type": by_type,
    }


def _copying(evaluation: Evaluation) -> dict:
    copying, sets, copies = evaluation.copying, evaluation.sets, evaluation.encoders[0].copies
    rates = {
        "of the nearest one, in synthetic images": copying.fake,
        "of the nearest one, in unseen real images (floor)": copying.real,
        "of a random one of another case, in synthetic images (floor)": copying.other,
    }
    score = dict(zip(copying.searched.tolist(), copying.scores.tolist(), strict=True))

    def pairs(chosen: np.ndarray) -> list[dict]:
        shown = []
        for i in chosen.tolist():
            found = f", part score {score[i]:.2f}" if np.isfinite(score.get(i, np.nan)) else ""
            caption = f"{sets.fake.names[i]}, distance ratio {copies.ratio[i]:.2f}{found}"
            shown.append(_pair(sets.fake.images[i], sets.train.images[copies.neighbor[i]], caption))
        return shown

    return {
        "rows": {name: rate for name, rate in rates.items() if rate} if copying.fake and copying.real else {},
        "suspects": pairs(np.argsort(copies.ratio, kind="stable")[:SHOWN]),
        "any": pairs(np.random.default_rng(evaluation.config.seed).permutation(len(copies.ratio))[:SHOWN]),
    }


def _crops(evaluation: Evaluation) -> dict | None:
    """What reappears of the crops that patches were generated from; None for images that name none."""
    crops, fake = evaluation.crops, evaluation.sets.fake
    if not crops.used.named:
        return None
    found = [f"Of {crops.used.named} crops that the synthetic images name, {len(crops.used.found)} were found"]
    found += [f"{count} were not: {why}" for why, count in crops.used.missing.items()]
    rates = {
        "the patch generated from it": crops.woven,
        "another real patch of its case (floor)": crops.real,
        "a synthetic patch made without it (floor)": crops.other,
    }
    judged = np.flatnonzero(np.isfinite(crops.scores))
    suspects = []
    for i in judged[np.argsort(-crops.scores[judged], kind="stable")][:SHOWN].tolist():
        crop, patch = crops.searched[i], fake.images[crops.searched[i].woven]
        caption = f"{fake.names[crop.woven]}, crop of {crop.source}, part score {crops.scores[i]:.2f}"
        suspects.append(_pair(patch, _at_its_size(crop.pixels, patch), caption))
    rows = {name: rate for name, rate in rates.items() if rate} if crops.woven else {}
    return {"found": "; ".join(found), "rows": rows, "suspects": suspects}


def _pair(left: np.ndarray, right: np.ndarray, caption: str) -> dict:
    return {"left": left, "right": right, "caption": caption}


def _at_its_size(crop: np.ndarray, patch: np.ndarray) -> np.ndarray:
    """The crop on white, as large as the patch, so that both have the same magnification on the page."""
    sheet = np.full_like(patch, 255)
    height, width = patch.shape[:2]
    sheet[: crop.shape[0], : crop.shape[1]] = crop[:height, :width]
    return sheet


def _best_and_worst(evaluation: Evaluation) -> dict[str, list[dict]]:
    first, fake = evaluation.encoders[0], evaluation.sets.fake
    likeness = first.realism if first.two_sample is None else -first.two_sample.fake_scores
    order = np.argsort(-likeness, kind="stable").tolist()
    return {
        title: [{"image": fake.images[i], "name": fake.names[i]} for i in chosen]
        for title, chosen in (("Most like real ones", order[:SHOWN]), ("Least like real ones", order[::-1][:SHOWN]))
    }


def _how_made(evaluation: Evaluation) -> list[str]:
    config, made = evaluation.config, evaluation.sets.fake.made
    prints = "; ".join(f"{name} {value[:12]}" for name, value in evaluation.fingerprints.items())
    lines = [
        f"Measured by Histoloom {VERSION}. Encoders (fingerprint): {prints}."
        + (f" Segmenter (fingerprint): {evaluation.segmenter[:12]}." if evaluation.segmenter else "")
        + f" At most {config.most} images a side, {config.pairs} searched for copied parts, seed {config.seed}.",
        "report.json, next to this page, holds every figure. Distances depend on the number, size and file format of "
        "the images: compare only reports that share them.",
    ]
    if made:
        lines.insert(
            0,
            f"Synthetic images were generated by Histoloom {made['version']}, model {made['model_hash'][:12]} "
            f"({made['conditioning']}), sampler {made['scheduler']} in {made['steps']} steps, guidance by map "
            f"{made['map_guidance']} and by crops {made['crop_guidance']}, at shares of noise "
            f"{made['guidance_interval']}.",
        )
    return lines


def _span(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{_number(low)}, {_number(high)}]"


def _number(value: float | None) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"
