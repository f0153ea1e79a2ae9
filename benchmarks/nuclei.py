"""Nuclei of woven and of real patches, by one routine on both: how many, how large, how varied.

    python benchmarks/nuclei.py DATASET WOVEN --split val --out DIR

WOVEN holds patches that were woven from maps of the split. Nuclei are found in the hematoxylin channel (color
deconvolution, Gaussian of 1 px, Otsu's threshold of the patch), cut apart by a watershed of the distance to their rim,
and kept from 12 to 300 px. The routine finds dark blobs, not what a pathologist calls a nucleus: its figures compare
woven with real tissue and with nothing else. Each nucleus belongs to the tissue under its center; glands are all types
but the first. The floor compares real patches of two halves of the cases. OUT gets `nuclei.json` and `nuclei.png`, six
patches of each kind with outlines.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import regionprops_table
from skimage.segmentation import find_boundaries, watershed

from histoloom.evaluation.comparison import halves_by_case
from histoloom.evaluation.sources import ImageSet, load_images
from histoloom.files import write_json
from histoloom.metrics import mean_interval, wasserstein
from histoloom.stain import rgb_to_hed

SMALLEST, LARGEST = 12, 300  # px
LEAST = 2000  # px of a tissue on a patch for its density to count
TISSUES = ("stroma", "glands")


@dataclass(frozen=True, eq=False)
class Nuclei:
    """Per patch and tissue (nan: too little of it) the nuclei per 10,000 px; per tissue the areas of all nuclei."""

    density: np.ndarray  # n 2
    areas: tuple[np.ndarray, np.ndarray]


def outline(image: np.ndarray) -> np.ndarray:
    """Labels of nuclei, 0 between them."""
    blue = gaussian(rgb_to_hed(image)[..., 0], 1, preserve_range=True)
    mask = ndimage.binary_opening(blue > threshold_otsu(blue))
    depth = gaussian(ndimage.distance_transform_edt(mask), 1, preserve_range=True)
    markers = np.zeros(mask.shape, np.int32)
    peaks = peak_local_max(depth, min_distance=3, labels=mask.astype(np.int32), exclude_border=False)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels = watershed(-depth, markers, mask=mask)
    sizes = np.bincount(labels.ravel())
    return np.where((sizes >= SMALLEST) & (sizes <= LARGEST), np.arange(len(sizes)), 0)[labels]


def measure(images: ImageSet) -> Nuclei:
    """Find the nuclei of all patches."""
    density, areas = np.full((len(images), 2), np.nan), ([], [])
    for index, (image, semantic_map) in enumerate(zip(images.images, images.maps, strict=True)):
        found = regionprops_table(outline(image), properties=("centroid", "area"))
        at = tuple(np.round(found[f"centroid-{axis}"]).astype(int) for axis in range(2))
        of_tissue = np.where(semantic_map == 255, 2, semantic_map > 0)
        for tissue in range(2):
            mine = of_tissue[at] == tissue
            areas[tissue].append(found["area"][mine])
            if (pixels := np.count_nonzero(of_tissue == tissue)) >= LEAST:
                density[index, tissue] = 1e4 * np.count_nonzero(mine) / pixels
    return Nuclei(density, (np.concatenate(areas[0]), np.concatenate(areas[1])))


def figures(nuclei: Nuclei, cases: Sequence[str]) -> dict:
    """Mean density with its interval over cases, median and spread of areas, per tissue."""
    found = {}
    for number, tissue in enumerate(TISSUES):
        known = ~np.isnan(nuclei.density[:, number])
        values, mine = nuclei.density[known, number], [c for c, k in zip(cases, known, strict=True) if k]
        low, middle, high = np.percentile(nuclei.areas[number], [25, 50, 75])
        found[tissue] = {
            "patches": len(values),
            "nuclei": len(nuclei.areas[number]),
            "density": [float(values.mean()), *mean_interval(values, mine)],
            "area": [float(low), float(middle), float(high)],
        }
    return found


def differences(one: Nuclei, other: Nuclei) -> dict:
    """How far two sets are apart: ratio of mean densities, and Wasserstein distance of densities and of areas."""
    found = {}
    for number, tissue in enumerate(TISSUES):
        a, b = (n.density[~np.isnan(n.density[:, number]), number] for n in (one, other))
        found[tissue] = {
            "ratio": float(a.mean() / b.mean()),
            "density": float(wasserstein(a, b)),
            "area": float(wasserstein(one.areas[number].astype(float), other.areas[number].astype(float))),
        }
    return found


def sheet(sets: Sequence[ImageSet], path: Path) -> None:
    """Six patches of each set with the outlines of their nuclei."""
    rows = []
    for images in sets:
        shown = []
        for index in np.linspace(0, len(images) - 1, 6).astype(int):
            image = images.images[index].copy()
            image[find_boundaries(outline(image), mode="inner")] = (255, 255, 0)
            shown.append(image)
        rows.append(np.concatenate(shown, 1))
    Image.fromarray(np.concatenate(rows)).save(path)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("woven", type=Path)
    parser.add_argument("--split", default="val")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    sets = {"real": load_images(arguments.dataset, arguments.split), "woven": load_images(arguments.woven)}
    nuclei = {name: measure(images) for name, images in sets.items()}
    found = {name: figures(nuclei[name], images.cases) for name, images in sets.items()}
    halves = [measure(sets["real"].select(side)) for side in halves_by_case(sets["real"].cases)]
    found |= {"woven against real": differences(nuclei["woven"], nuclei["real"]), "floor": differences(*halves)}
    write_json(arguments.out / "nuclei.json", found)
    sheet([sets["real"], sets["woven"]], arguments.out / "nuclei.png")
    print("| tissue | set | patches, nuclei | per 10,000 px [95 %] | area: quartiles, px |\n|---|---|---|---|---|")
    for tissue in TISSUES:
        for name in sets:
            mine = found[name][tissue]
            mean, low, high = mine["density"]
            quartiles = ", ".join(f"{value:.0f}" for value in mine["area"])
            print(
                f"| {tissue} | {name} | {mine['patches']}, {mine['nuclei']} | {mean:.1f} [{low:.1f}, {high:.1f}] "
                f"| {quartiles} |"
            )
    for name in ("woven against real", "floor"):
        print(name, found[name])


if __name__ == "__main__":
    main()
