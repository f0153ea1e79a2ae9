"""Windows of a semantic map per second: Histoloom against what others fill polygons with, in one run.

    python benchmarks/rasterizing.py [--windows 200]

One slide of 100,000 px with 40 outlines of 5,000 points; 256 px windows at downsample 2, half of them on outlines.
`wrong` is the share of pixels that differ from shapely's "the center lies inside". OpenCV and rasterio take part if
installed. CPU time is counted: all use one core, and the machine may be shared. All peers are given the polygons near a
window by the same tree, and coordinates relative to the window.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import shapely
from PIL import Image, ImageDraw
from skimage.draw import polygon as skimage_polygon

from histoloom.slides.polygon import Polygon
from histoloom.slides.rasterize import PolygonMap

SIZE, STEP, SLIDE = 256, 2.0, 100_000
PATIENCE = 4.0  # seconds of CPU for one method; the slow ones see fewer windows


def outlines(rng: np.random.Generator) -> list[Polygon]:
    """Wavy discs that overlap here and there."""
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    polygons = []
    for _ in range(40):
        center, radius = rng.uniform(15_000, 85_000, 2), rng.uniform(2_000, 12_000)
        reach = radius * (1 + 0.1 * np.sin(9 * angles) + 0.003 * rng.standard_normal(5000))
        polygons.append(Polygon(center + np.stack([reach * np.cos(angles), reach * np.sin(angles)], axis=1)))
    return polygons


def places(rng: np.random.Generator, polygons: list[Polygon], count: int) -> np.ndarray:
    """Corners of windows: every other one around a point of an outline."""
    corners = rng.uniform(10_000, 90_000, (count, 2))
    for i in range(0, count, 2):
        ring = polygons[i % len(polygons)].ring
        corners[i] = ring[rng.integers(len(ring))] - SIZE * STEP / 2
    return corners.round()


def with_peers(polygons: list[Polygon]) -> dict[str, Callable[[float, float], np.ndarray]]:
    """Name -> window(x, y); each paints all polygons with 1 on 255."""
    painted = PolygonMap(polygons, [1] * len(polygons), (SLIDE, SLIDE), 0.25)
    shapes = [p.to_shapely() for p in polygons]
    shapely.prepare(shapes)
    tree = shapely.STRtree(shapes)

    def near(x: float, y: float) -> np.ndarray:
        return tree.query(shapely.box(x, y, x + SIZE * STEP, y + SIZE * STEP))

    def local(index: int, x: float, y: float) -> np.ndarray:
        return (polygons[index].ring - (x, y)) / STEP

    def by_shapely(x: float, y: float) -> np.ndarray:
        cx, cy = np.meshgrid(x + (np.arange(SIZE) + 0.5) * STEP, y + (np.arange(SIZE) + 0.5) * STEP)
        out = np.full((SIZE, SIZE), 255, np.uint8)
        for index in near(x, y):
            out[shapely.contains_xy(shapes[index], cx, cy)] = 1
        return out

    def by_pil(x: float, y: float) -> np.ndarray:
        image = Image.new("L", (SIZE, SIZE), 255)
        for index in near(x, y):
            ImageDraw.Draw(image).polygon((local(index, x, y) - 0.5).ravel().tolist(), fill=1)
        return np.asarray(image)

    def by_skimage(x: float, y: float) -> np.ndarray:
        out = np.full((SIZE, SIZE), 255, np.uint8)
        for index in near(x, y):
            ring = local(index, x, y) - 0.5
            out[skimage_polygon(ring[:, 1], ring[:, 0], (SIZE, SIZE))] = 1
        return out

    methods = {
        "histoloom": lambda x, y: painted.read(x, y, SIZE, 0.5),
        "shapely contains": by_shapely,
        "PIL ImageDraw": by_pil,
        "scikit-image": by_skimage,
    }
    return methods | optional_peers(near, local, shapes)


def optional_peers(near: Callable, local: Callable, shapes: list[shapely.Polygon]) -> dict[str, Callable]:
    """OpenCV and rasterio, where installed."""
    found = {}
    try:
        import cv2
    except ImportError:
        pass
    else:

        def by_opencv(x: float, y: float) -> np.ndarray:
            out = np.full((SIZE, SIZE), 255, np.uint8)
            for index in near(x, y):
                cv2.fillPoly(out, [np.round((local(index, x, y) - 0.5) * 256).astype(np.int32)], 1, shift=8)
            return out

        found["OpenCV fillPoly"] = by_opencv
    try:
        from rasterio.features import rasterize
        from rasterio.transform import Affine
    except ImportError:
        pass
    else:

        def by_rasterio(x: float, y: float) -> np.ndarray:
            areas = [(shapes[index], 1) for index in near(x, y)]
            if not areas:
                return np.full((SIZE, SIZE), 255, np.uint8)
            transform = Affine(STEP, 0, x, 0, STEP, y)
            return rasterize(areas, (SIZE, SIZE), fill=255, transform=transform, dtype=np.uint8)

        found["rasterio"] = by_rasterio
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=200)
    count = parser.parse_args().windows
    rng = np.random.default_rng(0)
    polygons = outlines(rng)
    corners = places(rng, polygons, count)
    methods = with_peers(polygons)
    truth = [methods["shapely contains"](x, y) for x, y in corners.tolist()]
    print(f"| {'method':18} | windows/s | wrong pixels |\n|{'-' * 20}|----------:|-------------:|")
    for name, window in methods.items():
        window(*corners[0].tolist())
        maps, start = [], time.process_time()
        for x, y in corners.tolist():
            maps.append(window(x, y))
            if time.process_time() - start > PATIENCE:
                break
        rate = len(maps) / (time.process_time() - start)
        wrong = np.mean([np.mean(a != b) for a, b in zip(maps, truth, strict=False)])
        print(f"| {name:18} | {rate:9,.1f} | {100 * wrong:11.4f}% |")


if __name__ == "__main__":
    main()
