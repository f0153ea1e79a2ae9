"""What `model_quality.py` measures on woven patches: stain, map, copying; and what the autoencoder keeps."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from quality_task import Task

from histoloom.augmentation import dihedral
from histoloom.cli.progress import bar
from histoloom.encoders.encoder import open_encoder
from histoloom.evaluation.segmenter import (
    SEGMENTER,
    Segmenter,
    SegmenterConfig,
    load_segmenter,
    save_segmenter,
    train_segmenter,
)
from histoloom.metrics.copy_score import best_match
from histoloom.metrics.copying import CopyRate, copy_rate, copy_threshold
from histoloom.metrics.frechet import frechet_distance
from histoloom.metrics.lab import mean_lab
from histoloom.metrics.map_fidelity import confusion, iou, mean_iou_interval, mean_over_present, merge_types
from histoloom.metrics.stain_following import StainFollowing, stain_following
from histoloom.models.autoencoder import decode, encode, latent_factor, to_images, to_pixels
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import Patches, load_patches
from histoloom.stain import StainJitter, apply_stain, draw_stain
from histoloom.tissue import TissueTable

PART = 32  # px, edge of the part of a crop that is searched for
JUDGE = SegmenterConfig(stain=StainJitter(shift=0.015))  # a larger shift tints the glass
DRAWS = 1000  # of the bootstrap


def open_judge(folder: Path, dataset: Path, table: TissueTable) -> Segmenter:
    """The segmenter of `folder`, trained on the train split of `dataset` first where there is none."""
    if not (folder / SEGMENTER).is_file():
        train = load_patches(dataset, "train")
        with bar("segmenter", JUDGE.steps, "steps") as running:
            judge = train_segmenter(
                train.images,
                train.semantic_maps,
                table.num_ids,
                JUDGE,
                running,
            )
        save_segmenter(judge, folder)
    return load_segmenter(folder)


def measure_stain(task: Task, woven: np.ndarray) -> dict[str, StainFollowing]:
    """Correlation of the mean Lab color of crop and region: of the woven patch, and of the real one it replaces."""
    crops, regions, real, cases = [], [], [], []
    for i, j in task.pairs():
        crop = task.orders[i].crops[j]
        region = task.orders[i].semantic_map == crop.tissue
        crops.append(mean_lab(crop.pixels))
        regions.append(mean_lab(woven[i], region))
        real.append(mean_lab(task.patches.images[task.chosen[i]], region))
        cases.append(task.cases[i])
    crops, regions, real = map(np.stack, (crops, regions, real))
    return {
        "woven": stain_following(crops, regions, cases),
        "real": stain_following(crops, real, cases),
    }


def measure_map(task: Task, woven: np.ndarray, judge: Segmenter, table: TissueTable, seed: int) -> dict:
    """Mean IoU of the judge on woven and on real patches of the same maps, and the ratio; all types, and two groups."""
    maps = np.stack([order.semantic_map for order in task.orders])
    real = task.patches.images[task.chosen]
    counts = {name: confusion(judge.predict(i), maps, table.num_ids) for name, i in (("woven", woven), ("real", real))}
    ground, *others = table.ids
    groups = {"all types": [[i] for i in table.ids], f"{table.names[0]} or not": [[ground], others]}
    return {label: _fidelity(counts, group, task.cases, seed) for label, group in groups.items()}


def measure_copying(task: Task, woven: np.ndarray, pairs: int, seed: int) -> dict[str, CopyRate]:
    """Share of crops that reappear in what was woven from them, in the real patch of the map, and where pasted;
    and of crops of another case in woven patches, which tells likeness of all woven tissue from copying.

    The threshold is what 99 % of `pairs` real pairs of different cases stay below, made with these very crops. What
    follows a crop's texture may pass it more often than they do; a copy scores as a planted paste does.
    """
    rng = np.random.default_rng((seed, 1))
    own = task.pairs()
    cases = np.asarray(task.patches.cases)
    unrelated, pasted, same_case, unlike, scores = [], [], [], [], []
    for n in _shown(range(pairs), "unrelated pairs", "pairs"):
        i, j = own[n % len(own)]
        other = task.patches.images[rng.choice(np.flatnonzero(cases != task.cases[i]))]
        unrelated.append(best_match(task.orders[i].crops[j].pixels, other, PART))
    for i, j in _shown(own, "crops", "crops"):
        crop = task.orders[i].crops[j].pixels
        scores.append(best_match(crop, woven[i], PART))
        same_case.append(best_match(crop, task.patches.images[task.chosen[i]], PART))
        others = [(k, m) for k, m in own if task.cases[k] != task.cases[i]]
        k, m = others[rng.integers(len(others))]
        unlike.append(best_match(task.orders[k].crops[m].pixels, woven[i], PART))
        pasted.append(best_match(crop, _paste(crop, woven[i], rng), PART))
    threshold = copy_threshold(np.asarray(unrelated))
    found = {"woven": scores, "unlike": unlike, "same_case": same_case, "unrelated": unrelated, "pasted": pasted}
    rates = {name: copy_rate(np.asarray(values), threshold) for name, values in found.items()}
    return rates | {"like_paste": copy_rate(np.asarray(scores), float(np.nanquantile(pasted, 0.05)))}


@torch.inference_mode()
def measure_autoencoder(pipeline: HistoloomPipeline, patches: Patches) -> dict:
    """PSNR in dB of bytes after encoding and decoding, over all patches, cut at the end to a multiple of the factor,
    and how far what is decoded lies from these very patches."""
    factor = latent_factor(pipeline.autoencoder)
    height, width = (edge // factor * factor for edge in patches.images.shape[1:3])
    errors, contrasts, encoder, vectors = [], [], open_encoder("histoloom-small"), []
    for start in _shown(range(0, len(patches), 8), "autoencoder", "batches"):
        images = torch.from_numpy(patches.images[start : start + 8, :height, :width].copy())
        pixels = to_pixels(images).to(pipeline.autoencoder.dtype)
        decoded = to_images(decode(pipeline.autoencoder, encode(pipeline.autoencoder, pixels)).float())
        errors += (images.float() - decoded.float()).square().mean((1, 2, 3)).tolist()
        vectors.append([encoder(side.numpy()) for side in (images, decoded)])
        contrasts.append([float(i.float().mean(-1).diff(dim=2).square().mean()) * len(i) for i in (decoded, images)])
    each = 10 * np.log10(255**2 / np.asarray(errors))
    pooled = 10 * np.log10(255**2 / np.mean(errors))
    of_decoded, of_real = np.sum(contrasts, axis=0)
    return {
        "psnr_of_mean_error": float(pooled),
        "mean_psnr": float(each.mean()),
        "worst_psnr": float(each.min()),
        "contrast": float(of_decoded / of_real),  # mean square of differences of neighbors, in units of real tissue
        "frechet_distance": frechet_distance(*map(np.concatenate, zip(*vectors, strict=True))),
        "n": len(patches),
        "pixels": [height, width],
    }


def _paste(crop: np.ndarray, host: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a model that pastes would make: the crop somewhere in the patch, turned, then restained and noisy."""
    turned = dihedral(crop, int(rng.integers(8)))
    y, x = (int(rng.integers(edge - side + 1)) for edge, side in zip(host.shape, turned.shape[:2], strict=False))
    pasted = host.copy()
    pasted[y : y + turned.shape[0], x : x + turned.shape[1]] = turned
    restained = apply_stain(pasted, draw_stain(JUDGE.stain, rng))
    return np.clip(restained + rng.normal(0, 4, restained.shape), 0, 255).round().astype(np.uint8)


def _fidelity(counts: dict[str, np.ndarray], groups: list[list[int]], cases: list[str], seed: int) -> dict:
    merged = {name: merge_types(c, groups) for name, c in counts.items()}
    means = {name: mean_over_present(iou(c.sum(0))) for name, c in merged.items()}
    result = {
        f"{name}_{key}": value
        for name, c in merged.items()
        for key, value in (
            ("miou", means[name]),
            ("interval", mean_iou_interval(c, cases)),
            ("iou", [round(float(v), 4) for v in iou(c.sum(0))]),
        )
    }
    interval = _ratio_interval(merged["woven"], merged["real"], cases, seed)
    return result | {"ratio": means["woven"] / means["real"], "ratio_interval": interval, "n": len(cases)}


def _ratio_interval(woven: np.ndarray, real: np.ndarray, cases: list[str], seed: int) -> tuple[float, float]:
    """Percentile bootstrap of the ratio of mean IoUs; each draw takes the same cases on both sides."""
    of_case = np.unique(cases, return_inverse=True)[1]
    number = of_case.max() + 1
    times = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), size=DRAWS)[:, of_case]
    means = [np.nanmean(iou(np.tensordot(times, counts, axes=1)), axis=1) for counts in (woven, real)]
    low, high = np.quantile(means[0] / means[1], [0.025, 0.975])
    return float(low), float(high)


def _shown(items: Sequence, label: str, unit: str) -> Iterator:
    """The items, under a progress bar."""
    with bar(label, len(items), unit) as running:
        for item in items:
            yield item
            running.advance()
