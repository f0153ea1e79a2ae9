"""A judge of map fidelity, pixel by pixel: a segmenter, and the loss that it has on real tissue of each type.

A woven pixel is lossy where the loss of its type exceeds a multiple of that type's mean, as FreeMask does (Yang et al.
2023, arXiv 2310.15160). There the means are over the synthetic images; here they are over real patches of cases that
the segmenter did not learn from, so that a patch is judged alike whatever else is woven.
"""

from dataclasses import asdict
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from histoloom import files
from histoloom.config import check_numbers
from histoloom.errors import InputError, ModelError
from histoloom.evaluation.segmenter import (
    Segmenter,
    SegmenterConfig,
    fitted,
    load_segmenter,
    save_segmenter,
    train_segmenter,
)
from histoloom.patches.split import hold_out
from histoloom.patches.store import load_patches, read_table, shards_of
from histoloom.progress import Progress, silent
from histoloom.records import Record, fingerprint, read_json
from histoloom.tissue import UNLABELLED, TissueTable

JUDGE = "judge"  # folder of the judge that a model carries
ABOUT = "judge.json"
HELD_OUT = 0.2  # of the patches, by case: on them the means are taken
FORMAT = 1


class Judge:
    """Compares the map of a patch with what the segmenter reads off the image."""

    def __init__(self, segmenter: Segmenter, table: TissueTable, mean_loss: dict[int, float]):
        self.segmenter, self.table, self.mean_loss = segmenter, table, mean_loss

    def relative_loss(
        self, image: UInt8[np.ndarray, "h w 3"], semantic_map: UInt8[np.ndarray, "h w"]
    ) -> Float[np.ndarray, "h w"]:
        """Cross-entropy of each pixel over the mean of its type on real tissue; 0 where that is not known.

        The ids of the map are those of the judge's own table.
        """
        loss = pixel_loss(self.segmenter, image, semantic_map)
        means = np.full(256, np.inf)
        means[list(self.mean_loss)] = list(self.mean_loss.values())
        return loss / means[semantic_map]


def pixel_loss(
    segmenter: Segmenter, image: UInt8[np.ndarray, "h w 3"], semantic_map: UInt8[np.ndarray, "h w"]
) -> Float[np.ndarray, "h w"]:
    """Cross-entropy of the map at each pixel, in nats; 0 for types that the segmenter does not know, and for 255."""
    chance = segmenter.chances(image)
    known = semantic_map < chance.shape[0]
    ids = np.where(known, semantic_map, 0).astype(np.int64)
    picked = np.take_along_axis(chance, ids[None], axis=0)[0]
    return np.where(known, -np.log(np.maximum(picked, 1e-7)), 0.0)


def train_judge(dataset: Path, out: Path, config: SegmenterConfig | None = None, progress: Progress = silent) -> dict:
    """Train a judge on split train of a dataset into the folder `out`, and return what is known of it.

    Its windows shrink to fit small patches. A finished judge of the same dataset and settings stays as it is. Raises
    InputError for a dataset of one case, OutputError where `out` holds anything else.
    """
    config = config or SegmenterConfig()
    check_numbers(config)
    record = Record(
        command="train-judge",
        format=FORMAT,
        settings=asdict(config),
        inputs={shard.name: fingerprint(shard) for shard in shards_of(dataset, "train")},
    )
    if not files.is_finished(out, record):
        table, patches = read_table(dataset), load_patches(dataset, "train")
        held = hold_out(patches.cases, HELD_OUT, config.seed)
        learned, judged = patches.select(np.flatnonzero(~held)), patches.select(np.flatnonzero(held))
        with files.whole_folder(out) as aside:
            with progress("training the judge", config.steps, "steps") as bar:
                maps, fits = learned.semantic_maps, fitted(config, min(patches.images.shape[1:3]))
                segmenter = train_segmenter(learned.images, maps, table.num_ids, fits, bar, table)
            means = _mean_losses(segmenter, judged.images, judged.semantic_maps)
            save_segmenter(segmenter, aside)
            about = {"tissue": table.to_rows(), "mean_loss": means, "held_out_patches": len(judged)}
            files.write_json(aside / ABOUT, about)
            files.write_record(aside, record)
    return read_json(out / ABOUT)


def load_judge(folder: Path) -> Judge:
    """The judge in a folder; raises ModelError for a folder that holds none."""
    folder = Path(folder)
    try:
        about = read_json(folder / ABOUT)
        table = TissueTable.from_rows(about["tissue"])
        means = {int(tissue): float(loss) for tissue, loss in about["mean_loss"].items()}
        if not all(0 <= tissue < UNLABELLED and np.isfinite(loss) and loss > 0 for tissue, loss in means.items()):
            raise ValueError("a mean loss is not a positive number")
    except (InputError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"{folder}: holds no judge ({error}); make one with `histoloom train-judge`") from None
    return Judge(load_segmenter(folder), table, means)


def _mean_losses(segmenter: Segmenter, images: np.ndarray, maps: np.ndarray) -> dict[int, float]:
    """Mean cross-entropy of each type that the patches show."""
    total, count = np.zeros(256), np.zeros(256)
    for image, semantic_map in zip(images, maps, strict=True):
        loss = pixel_loss(segmenter, image, semantic_map)
        total += np.bincount(semantic_map.ravel(), loss.ravel(), 256)
        count += np.bincount(semantic_map.ravel(), minlength=256)
    shown = [tissue for tissue in np.flatnonzero(count) if tissue != UNLABELLED]
    return {int(tissue): float(total[tissue] / count[tissue]) for tissue in shown}
