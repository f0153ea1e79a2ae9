"""Woven patches as images with shapes of their regions: COCO, YOLO, and GeoJSON for QuPath.

A region is what is connected by edges in a map and has one type. Nothing is simplified: each shape covers the pixels of
its region and no others.
"""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import shapely
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import find_objects
from scipy.spatial import KDTree

from histoloom import files
from histoloom.discovery.map_files import write_regions
from histoloom.generation.export_items import Item
from histoloom.license import License
from histoloom.patches.store import encode_png
from histoloom.slides.outlines import connected_regions, outlines
from histoloom.tissue import UNLABELLED, TissueTable
from histoloom.version import VERSION


def write_coco(items: Iterator[Item], table: TissueTable, license: License, aside: Path) -> None:
    """Write images, semantic maps and `instances.json`, whose masks are run lengths; ids of categories are those of the
    types plus one, and 0 in a semantic map is unlabeled."""
    images, numbers = [], count(1)
    about = {
        "info": {"description": "Woven patches", "version": VERSION},
        "licenses": [{"id": 1, "name": license.name}],
        "categories": [{"id": t.id + 1, "name": t.name, "supercategory": "tissue"} for t in table.types],
    }
    with files.whole_file(aside / "instances.json") as path, path.open("w", encoding="utf-8") as file:
        file.write(json.dumps(about)[:-1] + ', "annotations": [')
        for image_id, item in enumerate(items, start=1):
            _save_image(item, aside)
            semantic = encode_png(item.semantic_map + np.uint8(1))  # UNLABELLED becomes 0
            files.write_bytes(aside / "semantic" / f"{item.file.stem}.png", semantic["bytes"])
            height, width = item.semantic_map.shape
            images.append({"id": image_id, "file_name": item.file.name, "height": height, "width": width, "license": 1})
            for tissue, box, mask in _masks(item.semantic_map):
                number = next(numbers)
                annotation = {
                    "id": number,
                    "image_id": image_id,
                    "category_id": tissue + 1,
                    "iscrowd": 0,
                    "area": int(mask.sum()),
                    "bbox": box,
                    "segmentation": {"size": [height, width], "counts": _run_lengths(mask)},
                }
                file.write((",\n" if number > 1 else "\n") + json.dumps(annotation))
        file.write('\n], "images": ' + json.dumps(images) + "}\n")


def write_yolo(items: Iterator[Item], table: TissueTable, license: License, aside: Path) -> None:
    """Write images, a polygon per line of `labels/*.txt`, and `data.yaml`; classes are numbered in the order of types.

    YOLO's polygons have no holes: a slit of no width leads to each.
    """
    classes = {tissue.id: number for number, tissue in enumerate(table.types)}
    for item in items:
        _save_image(item, aside)
        scale = np.array(item.semantic_map.shape[::-1], np.float64)
        lines = [
            f"{classes[int(tissue)]} " + " ".join(f"{value:.7g}" for value in (_one_ring(polygon) / scale).ravel())
            for polygon, tissue in zip(*outlines(item.semantic_map), strict=True)
        ]
        files.write_text(aside / "labels" / f"{item.file.stem}.txt", "".join(f"{line}\n" for line in lines))
    names = "".join(f"  {number}: {json.dumps(tissue.name)}\n" for number, tissue in enumerate(table.types))
    note = "# Woven patches are for training; let val name real images that your model does not learn from.\n"
    files.write_text(aside / "data.yaml", f"{note}train: images\nval: images\nnames:\n{names}")


def write_geojson(items: Iterator[Item], table: TissueTable, license: License, aside: Path) -> None:
    """Write images, and for each a FeatureCollection in pixels of the image, as QuPath reads it."""
    for item in items:
        _save_image(item, aside)
        about = {"mpp": item.row.get("mpp"), "origin": [0.0, 0.0]}
        write_regions(aside / "annotations" / f"{item.file.stem}.geojson", item.semantic_map, 1, table, about, 0.0)


def _save_image(item: Item, aside: Path) -> None:
    files.write_bytes(aside / "images" / item.file, item.encoded)


def _masks(semantic_map: UInt8[np.ndarray, "h w"]) -> Iterator[tuple[int, list[int], Bool[np.ndarray, "h w"]]]:
    """Type, box (x, y, width, height) and mask of each region that is labeled."""
    regions = connected_regions(semantic_map)
    for number, place in enumerate(find_objects(regions + 1)):
        rows, columns = place
        inside = regions[place] == number
        tissue = int(semantic_map[place][inside][0])
        if tissue == UNLABELLED:
            continue
        mask = np.zeros(semantic_map.shape, bool)
        mask[place] = inside
        yield tissue, [columns.start, rows.start, columns.stop - columns.start, rows.stop - rows.start], mask


def _run_lengths(mask: Bool[np.ndarray, "h w"]) -> list[int]:
    """COCO's run lengths: runs of 0 and 1 in turn, down the columns, beginning with 0."""
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [-1]])
    return np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat))])).tolist()


def _one_ring(polygon: shapely.Polygon) -> Float[np.ndarray, "n 2"]:
    """One ring round a polygon and its holes, to be filled by the rule of even and odd."""
    ring = shapely.get_coordinates(polygon.exterior)[:-1]
    for hole in sorted((shapely.get_coordinates(h)[:-1] for h in polygon.interiors), key=lambda h: h[:, 0].min()):
        distances, nearest = KDTree(ring).query(hole)
        start = int(np.argmin(distances))
        at = int(np.asarray(nearest)[start])
        turned = np.roll(hole, -start, axis=0)
        ring = np.concatenate([ring[: at + 1], turned, turned[:1], ring[at:]])
    return ring
