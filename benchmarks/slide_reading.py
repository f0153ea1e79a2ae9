"""Patches per second: a bare OpenSlide loop (the limit) against `Slide.read` at one level without resampling.

    python benchmarks/slide_reading.py SLIDE [SLIDE_MPP]

Both read the same places in the same order, open the slide in their time and hand over RGB arrays. Seconds of the
processor are moved less by other work on the machine: two processes that wait for nothing have twice the rate of one
by them. By the clock it shows only where nothing else runs.
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import openslide

from histoloom.slides.reader import open_slide

SIZE, ROUNDS = 256, 9
PASSES = 5  # over the slide, opened anew each time, so that a round lasts a second and no cache helps


def places(width: int, height: int) -> list[tuple[int, int]]:
    """Corners of a grid off the tile grid, row by row."""
    return [(x, y) for y in range(40, height - SIZE, SIZE) for x in range(40, width - SIZE, SIZE)]


def share(all_places: list[tuple[int, int]], part: int, parts: int) -> list[tuple[int, int]]:
    """A run of neighboring rows: processes that took turns would each decode nearly every tile."""
    return all_places[len(all_places) * part // parts : len(all_places) * (part + 1) // parts]


def bare(path: str, _: float | None, part: int, parts: int) -> tuple[int, float, float]:
    """The loop that everybody writes: number of patches, seconds of the clock and of the processor."""
    count, clock, processor = 0, time.perf_counter(), time.process_time()
    for _ in range(PASSES):
        with openslide.OpenSlide(path) as slide:
            for x, y in share(places(*slide.dimensions), part, parts):
                np.asarray(slide.read_region((x, y), 0, (SIZE, SIZE)).convert("RGB"))
                count += 1
    return count, time.perf_counter() - clock, time.process_time() - processor


def ours(path: str, slide_mpp: float | None, part: int, parts: int) -> tuple[int, float, float]:
    """The same with `Slide.read`."""
    count, clock, processor = 0, time.perf_counter(), time.process_time()
    for _ in range(PASSES):
        with open_slide(path, slide_mpp) as slide:
            for x, y in share(places(*slide.size), part, parts):
                slide.read(x, y, SIZE, slide.mpp)
                count += 1
    return count, time.perf_counter() - clock, time.process_time() - processor


def per_core(loop, path: str, slide_mpp: float | None) -> float:
    """Patches per second of the processor, in this process."""
    count, _, seconds = loop(path, slide_mpp, 0, 1)
    return count / seconds


def together(loop, path: str, slide_mpp: float | None, pool: ProcessPoolExecutor, clock: bool) -> float:
    """Patches per second with two processes at the same time, of the clock or of the slower one's processor."""
    results = [job.result() for job in [pool.submit(loop, path, slide_mpp, part, 2) for part in range(2)]]
    return sum(count for count, *_ in results) / max(seconds[0 if clock else 1] for _, *seconds in results)


def main() -> None:
    """Print one table."""
    path, slide_mpp = sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else None
    print(f"{path}: {SIZE} px patches, median of {ROUNDS} alternating rounds, ratio with its range")
    print("| | bare OpenSlide /s | Slide.read /s | ratio |\n|---|---|---|---|")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        ways = {
            "one core": per_core,
            "two processes, by their processors": lambda loop, path, mpp: together(loop, path, mpp, pool, clock=False),
            "two processes, by the clock": lambda loop, path, mpp: together(loop, path, mpp, pool, clock=True),
        }
        for name, rate in ways.items():
            rate(bare, path, slide_mpp)  # starts the processes and warms the disk
            rounds = np.array([[rate(loop, path, slide_mpp) for loop in (bare, ours)] for _ in range(ROUNDS)])
            ratios, (limit, found) = rounds[:, 1] / rounds[:, 0], np.median(rounds, axis=0)
            spread = f"{np.median(ratios):.2f} ({ratios.min():.2f}-{ratios.max():.2f})"
            print(f"| {name} | {limit:.0f} | {found:.0f} | {spread} |", flush=True)


if __name__ == "__main__":
    main()
