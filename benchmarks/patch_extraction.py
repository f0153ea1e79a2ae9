"""Patches per second from one slide, in one run: a bare OpenSlide loop (the limit), Histoloom, and its peers.

    python benchmarks/patch_extraction.py SLIDE [--times 12] [--rounds 5] [--peers /tmp/peers] [--cores-only]

The slide is repeated `--times` along each axis into a pyramidal JPEG TIFF, so that it is as large as slides are. All
read the same patches of 256 px at level 0 in the same order, each opens the slide in its time; one core counts seconds
of the processor, two count seconds of the clock, which `--cores-only` leaves out for where other work runs. Peers run
in Pythons of their own, `PEERS/histolab/bin/python` and so on; what fails is printed as such.
"""

import argparse
import json
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

SIZE, MPP = 256, 0.5
READ = 600  # patches of a round of reading
TAKEN = 1500  # at most, by `histoloom patches`
PEERS = ("lazyslide", "hs2p", "histolab", "tiatoolbox")


def write_mosaic(source: Path, path: Path, times: int) -> None:
    """The slide's middle, repeated `times` x `times`, in levels 1, 4 and 16."""
    import tifffile
    from PIL import Image

    from histoloom.slides.reader import open_slide

    with open_slide(source, MPP) as slide:
        edge = min(slide.size) // 512 * 512
        x, y = ((length - edge) // 2 for length in slide.size)
        tile = slide.read(x, y, edge, slide.mpp)
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for factor in (1, 4, 16):
            part = np.asarray(Image.fromarray(tile).resize((edge // factor,) * 2, Image.Resampling.BOX))
            tiff.write(
                _tiles(part, times),
                shape=(times * len(part), times * len(part), 3),
                dtype=np.uint8,
                tile=(SIZE, SIZE),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 80},
                subfiletype=int(factor > 1),
                resolution=(1e4 / (MPP * factor),) * 2,
                resolutionunit="CENTIMETER",
            )


def _tiles(part: np.ndarray, times: int) -> Iterator[np.ndarray]:
    edge = times * len(part)
    for y in range(0, edge, SIZE):
        for x in range(0, edge, SIZE):
            tile = part[np.arange(y, y + SIZE) % len(part)][:, np.arange(x, x + SIZE) % len(part)]
            tile[max(edge - y, 0) :], tile[:, max(edge - x, 0) :] = 255, 255
            yield tile


def places(width: int, height: int, part: int = 0, parts: int = 1) -> list[tuple[int, int]]:
    """Corners of a grid off the tile grid, row by row; a part is a run of neighboring rows."""
    found = [(x, y) for y in range(40, height - SIZE, SIZE) for x in range(40, width - SIZE, SIZE)][:READ]
    return found[len(found) * part // parts : len(found) * (part + 1) // parts]


def bare(path: str, part: int = 0, parts: int = 1) -> int:
    """The loop that everybody writes; returns the number of patches."""
    import openslide

    with openslide.OpenSlide(path) as slide:
        todo = places(*slide.dimensions, part, parts)
        for x, y in todo:
            np.asarray(slide.read_region((x, y), 0, (SIZE, SIZE)).convert("RGB"))
    return len(todo)


def ours(path: str, part: int = 0, parts: int = 1) -> int:
    """The same with `Slide.read`."""
    from histoloom.slides.reader import open_slide

    with open_slide(path) as slide:
        todo = places(*slide.size, part, parts)
        for x, y in todo:
            slide.read(x, y, SIZE, slide.mpp)
    return len(todo)


def lazyslide(path: str, part: int = 0, parts: int = 1) -> int:
    """LazySlide's own iteration over tiles, after its own tissue detection."""
    import lazyslide as zs
    from wsidata import open_wsi

    slide = open_wsi(path, store=None)
    zs.pp.find_tissues(slide)
    zs.pp.tile_tissues(slide, tile_px=SIZE, mpp=MPP)
    count = 0
    for _ in slide.iter.tile_images("tiles"):
        count += 1
        if count == READ:
            break
    return count


def hs2p(path: str, part: int = 0, parts: int = 1) -> int:
    """hs2p's wrapper of a slide, reading the same places."""
    from hs2p.wsi.wsi import WSI

    slide = WSI(path=Path(path), backend="openslide")
    todo = places(*slide.level_dimensions[0])
    for x, y in todo:
        slide.get_tile(x=x, y=y, width=SIZE, height=SIZE, level=0)
    return len(todo)


def histolab(path: str, part: int = 0, parts: int = 1) -> int:
    """histolab's `extract_tile` at the same places."""
    from histolab.slide import Slide
    from histolab.types import CoordinatePair

    slide = Slide(path, processed_path=tempfile.gettempdir())
    todo = places(*slide.dimensions)
    for x, y in todo:
        tile = slide.extract_tile(CoordinatePair(x, y, x + SIZE, y + SIZE), tile_size=(SIZE, SIZE), level=0)
        np.asarray(tile.image.convert("RGB"))  # as the others hand it over
    return len(todo)


def tiatoolbox(path: str, part: int = 0, parts: int = 1) -> int:
    """tiatoolbox's reader at the same places."""
    from tiatoolbox.wsicore.wsireader import WSIReader

    slide = WSIReader.open(path)
    todo = places(*slide.slide_dimensions(0, "level"))
    for place in todo:
        slide.read_rect(place, (SIZE, SIZE), resolution=0, units="level")
    return len(todo)


def index(path: str, folder: Path, pixels: bool) -> tuple[int, int, float]:
    """`histoloom patches` on one slide: candidates, patches taken, seconds of the processor."""
    from histoloom.patches.from_slides import write_part
    from histoloom.patches.rules import PatchRules, SlideDataset
    from histoloom.patches.slide_jobs import find_jobs
    from histoloom.slides.labeling import AnnotationConfig
    from histoloom.slides.reader import open_slide
    from histoloom.tissue import TissueTable

    table = TissueTable.from_names(["stroma", "tumour"])
    with open_slide(path) as slide:
        edge = slide.size[0]
        candidates = (edge // SIZE) ** 2
    if not (folder / f"{Path(path).stem}.geojson").exists():
        _write_circles(folder / f"{Path(path).stem}.geojson", edge)
    (folder / "parts").mkdir(exist_ok=True)
    rules = PatchRules(
        mpp=MPP, size=SIZE, stride=SIZE, per_slide=TAKEN, per_type=TAKEN, min_focus=0.02 if pixels else 0.0
    )
    config = SlideDataset(rules=rules, annotations=AnnotationConfig(rest="stroma"), pixels=pixels, val_share=0.0)
    (job,), _ = find_jobs(Path(path), folder, config)
    started = time.process_time()
    write_part(job, table, config, folder)
    seconds = time.process_time() - started
    import pyarrow.parquet as pq

    return candidates, pq.read_metadata(folder / "parts" / job.part).num_rows, seconds


def _write_circles(path: Path, edge: int) -> None:
    """A tumour every 1,500 px, of 200 points each."""
    turn = np.linspace(0, 2 * np.pi, 200)
    features = []
    for x in range(750, edge, 1500):
        for y in range(750, edge, 1500):
            ring = np.stack([x + 500 * np.cos(turn), y + 500 * np.sin(turn)], 1).clip(0, edge)
            geometry = {"type": "Polygon", "coordinates": [ring.tolist()]}
            properties = {"classification": {"name": "tumour"}}
            features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))


def per_core(loop: Callable[..., int], path: str) -> float:
    """Patches per second of the processor, in this process."""
    started = time.process_time()
    return loop(path) / (time.process_time() - started)


def together(loop: Callable[..., int], path: str, pool: ProcessPoolExecutor) -> float:
    """Patches per second of the clock, with two processes."""
    started = time.perf_counter()
    return sum(pool.map(loop, [path] * 2, range(2), [2] * 2)) / (time.perf_counter() - started)


def peer(name: str, path: str, folder: str, rounds: int) -> str:
    """Median rate of a peer in its own Python, or why there is none."""
    command = [f"{folder}/{name}/bin/python", __file__, path, "--only", name, "--rounds", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"does not run: {done.stderr.strip().splitlines()[-1][:120]}" if done.stderr else "does not run"
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("slide")
    parser.add_argument("--times", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", default="")
    parser.add_argument("--cores-only", action="store_true")
    parser.add_argument("--only", choices=PEERS)
    chosen = parser.parse_args()
    if chosen.only:
        per_core(globals()[chosen.only], chosen.slide)  # imports, too
        rates = [per_core(globals()[chosen.only], chosen.slide) for _ in range(chosen.rounds)]
        print(f"{np.median(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})")
        return
    with tempfile.TemporaryDirectory() as home:
        path = str(Path(home) / "mosaic.tif")
        write_mosaic(Path(chosen.slide), Path(path), chosen.times)
        report(path, Path(home), chosen.rounds, chosen.peers, chosen.cores_only)


def report(path: str, home: Path, rounds: int, peers: str, cores_only: bool) -> None:
    """All rows, for one mosaic; the bare loop and ours take turns."""
    print(f"{SIZE} px patches, median (range) of {rounds} rounds of {READ}\n| what | patches/s |\n|---|---|")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        ways = (("one core", per_core), ("two processes", lambda loop, path: together(loop, path, pool)))
        for name, rate in ways[:1] if cores_only else ways:
            _ = [rate(loop, path) for loop in (bare, ours)]  # imports, starts the processes, warms the disk
            found = np.array([[rate(loop, path) for loop in (bare, ours)] for _ in range(rounds)])
            for column, what in enumerate(("bare OpenSlide loop", "Histoloom, reading")):
                rates = found[:, column]
                print(f"| {what}, {name} | {np.median(rates):.0f} ({rates.min():.0f}-{rates.max():.0f}) |", flush=True)
    for pixels, what in ((False, "index only"), (True, "with pixels")):
        runs = [index(path, home, pixels) for _ in range(rounds)]
        candidates, taken, _ = runs[0]
        seconds = [run[2] for run in runs]
        rate = f"{candidates / np.median(seconds):.0f} candidates/s, {taken / np.median(seconds):.0f} taken/s"
        print(f"| Histoloom, {what} ({candidates} candidates, {taken} taken), one core | {rate} |", flush=True)
    for name in PEERS if peers else ():
        print(f"| {name}, one core | {peer(name, path, peers, rounds)} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
