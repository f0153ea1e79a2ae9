"""Do the decoder, guidance or steps cost nuclei? Density of nuclei in real, decoded and woven patches of the same maps.

    python benchmarks/nuclei_by_guidance.py DATASET@SPLIT MODEL --ways 10,1.5,3,0.4,0.9 10,1,1,0,1

A way is steps, map guidance, crop guidance, and the shares of noise between which guidance acts. Patches are those of
`few_steps.py` (crops of other patches of the case, seed 0), every fourth of 200. Nuclei are found as in `nuclei.py`,
and belong to the tissue of the map; lumens and glass are left out on all sides. The distance is the Fréchet distance
from all real patches of the split (`histoloom-small`); it falls with the number of patches, so it compares these rows
alone.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from nuclei import TISSUES, measure
from quality_task import make_task, with_lumens

from histoloom.encoders.encoder import open_encoder
from histoloom.evaluation.sources import load_images
from histoloom.metrics import frechet_distance
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.patches.store import load_patches
from histoloom.study.decoding import Decoder
from histoloom.tissue import UNLABELLED
from histoloom.weights import find_model


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="FOLDER@SPLIT")
    parser.add_argument("model")
    parser.add_argument("--ways", nargs="+", required=True, metavar="STEPS,MAP,CROP,LOW,HIGH")
    parser.add_argument("--sampler")
    arguments = parser.parse_args()
    folder, _, split = arguments.dataset.partition("@")
    patches, shown = load_patches(Path(folder), split), load_images(Path(folder), split)
    pipeline = HistoloomPipeline.load(find_model(arguments.model))
    task = make_task(patches, 200, 0, 1)
    of_task = range(0, len(task.orders), 4)
    chosen = np.array([task.chosen[i] for i in of_task])
    orders = [task.orders[i] for i in of_task]
    outlined = with_lumens(task, pipeline.table)
    maps = np.stack([outlined.orders[i].semantic_map for i in of_task])
    lumens = [tissue.id for tissue in pipeline.table.types if "lumen" in tissue.name]
    maps[np.isin(maps, lumens)] = UNLABELLED
    judged = shown.select(chosen)
    encoder, decoder = open_encoder("histoloom-small"), Decoder(find_model(arguments.model))
    real = encoder(patches.images)

    def row(name: str, images: np.ndarray) -> None:
        height, width = images.shape[1:3]
        nuclei = measure(replace(judged, images=images, semantic_maps=maps[:, :height, :width]))
        areas = ", ".join(f"{np.median(area):.0f}" for area in nuclei.areas)
        density = ", ".join(f"{value:.1f}" for value in np.nanmean(nuclei.density, 0))
        print(f"| {name} | {density} | {areas} | {frechet_distance(real, encoder(images)):.1f} |", flush=True)

    print(f"{len(chosen)} patches of {len(set(judged.cases))} cases; {' and '.join(TISSUES)}")
    print("| patches | nuclei per 10,000 px | median area, px | distance |\n|---|---|---|---|")
    row("real", judged.images)
    row("encoded and decoded", np.stack([decoder(image) for image in judged.images]))
    for way in arguments.ways:
        steps, on_map, on_crops, low, high = map(float, way.split(","))
        row(
            way,
            pipeline(
                [order.semantic_map for order in orders],
                [order.crops for order in orders],
                steps=int(steps),
                sampler=arguments.sampler,
                map_guidance=on_map,
                crop_guidance=on_crops,
                guidance_interval=(low, high),
                seed=0,
                batch_size=8,
            ),
        )


if __name__ == "__main__":
    main()
