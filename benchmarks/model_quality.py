"""What a model card claims, measured on real patches that the model has not seen: stain, map, copying, autoencoder.

    python benchmarks/model_quality.py ebhi-seg runs/ebhi-seg/dataset --segmenter runs/ebhi-seg/judge --out quality

Weaves patches for the maps of the validation split, each with crops from *other* patches of its case, and writes to
OUT: `quality.json` (every figure with its n and seed), `quality.md` (the block for the model card), `woven/` (the
patches, with provenance; an interrupted run goes on) and `contact-sheet.png`. OUT shows real crops: do not publish it.
The judge of the map is trained on the train split first, where the folder of `--segmenter` holds none.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from outlined import outlined

from histoloom.augmentation import dihedral
from histoloom.cli.progress import bar
from histoloom.conditioning.crops import CropConfig, ReferenceCrops
from histoloom.encoders.encoder import open_encoder
from histoloom.evaluation.segmenter import (
    SEGMENTER,
    Segmenter,
    SegmenterConfig,
    load_segmenter,
    save_segmenter,
    train_segmenter,
)
from histoloom.generation.contact_sheet import SheetRow, contact_sheet
from histoloom.generation.order import Order
from histoloom.generation.patches import WeaveConfig, copy_limit_of, weave
from histoloom.generation.woven_patch import FORMAT
from histoloom.generation.woven_reader import read_woven
from histoloom.generation.woven_writer import write_patches
from histoloom.metrics.copy_score import best_match
from histoloom.metrics.copying import CopyRate, copy_rate, copy_threshold
from histoloom.metrics.frechet import frechet_distance
from histoloom.metrics.lab import mean_lab
from histoloom.metrics.map_fidelity import confusion, iou, mean_iou_interval, mean_over_present, merge_types
from histoloom.metrics.stain_following import StainFollowing, stain_following
from histoloom.models.autoencoder import decode, encode, latent_factor, to_images, to_pixels
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import Patches, load_patches, read_table
from histoloom.records import Record
from histoloom.stain import StainJitter, apply_stain, draw_stain
from histoloom.tissue import TissueTable
from histoloom.weights import find_model

SHEET = 64  # patches on the contact sheet
PART = 32  # px, edge of the part of a crop that is searched for
JUDGE = SegmenterConfig(stain=StainJitter(shift=0.015))  # a larger shift tints the glass
DRAWS = 1000  # of the bootstrap
COPYING_ROWS = {
    "woven": "crops that score above 99 % of unrelated real pairs",
    "unlike": "the same, crops of other cases in woven patches",
    "same_case": "the same, in the real patch of the map (same case)",
    "unrelated": "real pairs of different cases (1 % by construction)",
    "pasted": "planted pastes found",
    "like_paste": "crops that score as planted pastes do (all but the lowest 5 % of them)",
}


@dataclass(frozen=True)
class Task:
    """The patches that are woven again: their numbers in `patches`, and one list of crops for each."""

    patches: Patches
    chosen: list[int]
    orders: list[Order]

    @property
    def cases(self) -> list[str]:
        """Case of each woven patch."""
        return [self.patches.cases[i] for i in self.chosen]

    def pairs(self) -> list[tuple[int, int]]:
        """All (number of the patch, number of its crop)."""
        return [(i, j) for i, order in enumerate(self.orders) for j in range(len(order.crops))]


def shown(items: Sequence, label: str, unit: str) -> Iterator:
    """The items, under a progress bar."""
    with bar(label, len(items), unit) as running:
        for item in items:
            yield item
            running.advance()


def make_task(patches: Patches, count: int, seed: int, per_type: int) -> Task:
    """`count` patches drawn without replacement, and their crops, which come from other patches of the case."""
    rng = np.random.default_rng(seed)
    references = ReferenceCrops(patches, CropConfig(per_type=per_type, drop_type=0.0, candidates=1))
    chosen = rng.permutation(len(patches))[:count].tolist()
    orders = []
    for index in chosen:
        wanted = patches.semantic_maps[index]
        nowhere = np.zeros(wanted.shape, bool)  # no crop from the patch itself
        orders.append(Order(wanted, patches.names[index], references.draw(index, nowhere, wanted, None, rng)))
    return Task(patches, chosen, orders)


def with_lumens(task: Task, table: TissueTable) -> Task:
    """The task with maps that outline lumens, as the model is to see them."""
    maps = outlined(task.patches, table)
    orders = [replace(order, semantic_map=maps[i]) for i, order in zip(task.chosen, task.orders, strict=True)]
    return replace(task, orders=orders)


def weave_task(pipeline: HistoloomPipeline, task: Task, config: WeaveConfig, record: Record, out: Path) -> np.ndarray:
    """Weave the task into `out`, going on where an interrupted run stopped; images `n h w 3`."""
    with bar("weaving", len(task.orders), "patches") as running:

        def from_number(first: int):
            running.advance(first)
            return weave(pipeline, task.orders, config, first, running)

        write_patches(from_number, pipeline.table, out, record)
    return read_woven(out).images


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
    for n in shown(range(pairs), "unrelated pairs", "pairs"):
        i, j = own[n % len(own)]
        other = task.patches.images[rng.choice(np.flatnonzero(cases != task.cases[i]))]
        unrelated.append(best_match(task.orders[i].crops[j].pixels, other, PART))
    for i, j in shown(own, "crops", "crops"):
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
    for start in shown(range(0, len(patches), 8), "autoencoder", "batches"):
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


def markdown(result: dict) -> str:
    """The block for the model card."""
    run, stain, copying, auto = result["run"], result["stain"], result["copying"], result["autoencoder"]
    lines = [
        f"{run['patches']} of {run['patches_in_split']} patches of split `{run['split']}`, {run['cases']} cases, "
        f"{run['crops']} crops from other patches of the case (for {run['patches_with_crops']} patches), "
        f"conditioning {run['conditioning']}, {run['steps']} steps of {run['sampler']}, "
        f"map guidance {run['map_guidance']:g}, crop guidance {run['crop_guidance']:g}, at shares of noise between "
        f"{run['guidance_interval'][0]:g} and {run['guidance_interval'][1]:g}, seed {run['seed']}, "
        f"model {run['model_hash']}. {run['woven_again']} patches were more alike to a crop than "
        f"{run['copy_limit'] or 1:.3f} and woven again, {run['still_alike']} still are. "
        "Brackets: 95 % intervals; bootstrap over cases, Wilson for rates.",
        "",
        "| figure | woven | real, or control | n |",
        "|---|---|---|---|",
    ]
    for channel, name in enumerate("Lab"):
        ours, real = (_with_bounds(stain[k], channel) for k in ("woven", "real"))
        lines.append(
            f"| stain: correlation of crop and region, {name} | {ours} | {real} | {stain['woven']['n']} crops |"
        )
    for label, values in result["map"].items():
        ours, real = (f"{values[f'{k}_miou']:.3f} {_bounds(values[f'{k}_interval'])}" for k in ("woven", "real"))
        lines.append(f"| map: mean IoU, {label} | {ours} | {real} | {values['n']} patches |")
        ratio = f"{values['ratio']:.3f} {_bounds(values['ratio_interval'])}"
        lines.append(f"| map: woven / real, {label} | {ratio} | 1 | {values['n']} patches |")
    for name, label in COPYING_ROWS.items():
        lines.append(f"| copying: {label} | {_shares(name, copying[name])} | {copying[name]['n']} crops |")
    psnr = f"{auto['psnr_of_mean_error']:.2f} dB; mean {auto['mean_psnr']:.2f}, worst {auto['worst_psnr']:.2f}"
    lines.append(f"| autoencoder: PSNR over all patches | {psnr} | - | {auto['n']} patches |")
    lines.append(f"| autoencoder: contrast of neighboring pixels | {auto['contrast']:.2f} | 1 | {auto['n']} patches |")
    distance = f"{auto['frechet_distance']:.1f}"
    lines.append(f"| autoencoder: Fréchet distance of decoded patches to real | {distance} | 0 | {auto['n']} patches |")
    return "\n".join(lines) + "\n"


def _with_bounds(following: dict, channel: int) -> str:
    bounds = following["low"][channel], following["high"][channel]
    return f"{following['correlation'][channel]:.3f} {_bounds(bounds)}"


def _bounds(bounds: tuple[float, float]) -> str:
    return f"[{bounds[0]:.3f}, {bounds[1]:.3f}]"


def _shares(name: str, rate: dict) -> str:
    share = f"{100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
    return f"{share} | -" if name in ("woven", "like_paste") else f"- | {share}"


def measure(arguments: argparse.Namespace) -> None:
    """Weave, measure, write."""
    out: Path = arguments.out
    pipeline = HistoloomPipeline.load(find_model(arguments.model))
    table, patches = read_table(arguments.dataset), load_patches(arguments.dataset, arguments.split)
    task = make_task(patches, arguments.count, arguments.seed, arguments.per_type)
    names = ("steps", "sampler", "map_guidance", "crop_guidance", "seed", "copy_limit")
    asked = {name: getattr(arguments, name) for name in names}
    config = WeaveConfig(**asked, guidance_interval=tuple(arguments.guidance_interval))
    settings = asdict(config) | {"copy_limit": copy_limit_of(pipeline, config)}
    record = Record(
        command="model_quality",
        format=FORMAT,
        settings=settings | {"per_type": arguments.per_type, "count": arguments.count, "lumens": arguments.lumens},
        inputs={"model": pipeline.fingerprint, "patches": patches.fingerprint()},
    )
    shown_to = with_lumens(task, pipeline.table) if arguments.lumens else task
    woven = weave_task(pipeline, shown_to, config, record, out / "woven")
    rows = read_woven(out / "woven").rows
    first = rows[0]
    result = {
        "run": {key: first[key] for key in ("model_hash", "conditioning", "steps", "version")}
        | {key: settings[key] for key in ("map_guidance", "crop_guidance", "guidance_interval", "seed", "copy_limit")}
        | {
            "sampler": first["scheduler"],
            "split": arguments.split,
            "patches": len(task.orders),
            "patches_in_split": len(patches),
            "cases": len(set(task.cases)),
            "crops": len(task.pairs()),
            "patches_with_crops": sum(bool(order.crops) for order in task.orders),
            "crops_per_type": arguments.per_type,
            "woven_again": sum(row["tries"] > 1 for row in rows),
            "still_alike": sum((row["copy_score"] or 0) > (row["copy_limit"] or 1) for row in rows),
        },
        "stain": {name: asdict(value) for name, value in measure_stain(task, woven).items()},
        "map": measure_map(
            task, woven, open_judge(arguments.segmenter, arguments.dataset, table), table, arguments.seed
        ),
        "copying": {
            name: asdict(value) for name, value in measure_copying(task, woven, arguments.pairs, arguments.seed).items()
        },
        "autoencoder": measure_autoencoder(pipeline, patches),
    }
    (out / "quality.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (out / "quality.md").write_text(markdown(result), encoding="utf-8")
    rows = [
        SheetRow(order.semantic_map, [(c.tissue, c.pixels) for c in order.crops], image)
        for order, image in zip(task.orders[:SHEET], woven, strict=False)
    ]
    contact_sheet(rows, table, columns=4, title=f"{arguments.split}, model {first['model_hash']}").save(
        out / "contact-sheet.png"
    )
    print(markdown(result))


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a model, or the bundled ebhi-seg")
    parser.add_argument("dataset", type=Path, help="patch dataset with the splits train and val")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--segmenter", type=Path, required=True, help="folder of the judge; trained where it is empty")
    parser.add_argument("--split", default="val")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=400, help="unrelated pairs for the copy threshold, 100 or more")
    parser.add_argument("--per-type", type=int, default=1, help="crops of a type, at most")
    parser.add_argument("--lumens", action="store_true", help="outline lumens in the maps that the model sees")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--copy-limit", type=float, help="likeness above which a patch is woven again; 1: none")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--sampler")
    parser.add_argument("--map-guidance", type=float, default=WeaveConfig.map_guidance)
    parser.add_argument("--crop-guidance", type=float, default=WeaveConfig.crop_guidance)
    parser.add_argument("--guidance-interval", type=float, nargs=2, default=WeaveConfig.guidance_interval)
    measure(parser.parse_args())


if __name__ == "__main__":
    main()
