"""What a canvas costs, and whether its windows show.

    python benchmarks/canvas.py cost MODEL [--width 512] [--heights 1024 2048 4096 8192]
    python benchmarks/canvas.py overhead MODEL [--size 1024] [--patches 8]
    python benchmarks/canvas.py seams MODEL [--size 960] [--window 128] [--seeds 0 1 2]
    python benchmarks/canvas.py seams --slide canvas.tif [--window 384]

cost: `histoloom canvas` in a process of its own for each height: seconds of the processor per megapixel, and the
largest memory of the process. overhead: seconds of the processor for a canvas, against single patches of 224 px of the
same area. seams: plain tiling, windows that overlap by a quarter and stay where they are, and ours, whose grid moves at
every step; on layouts of the same seeds, with crops of the bundled bank.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from histoloom import HistoloomPipeline, LayoutConfig, draw_layouts, find_model, load_bank
from histoloom.metrics import seams
from histoloom.models.field import Field, MapGround
from histoloom.models.sampling import Sampling
from histoloom.models.windows import WindowConfig
from histoloom.slides import open_slide

FIGURES = ("gradient", "gradient_p", "jump", "jump_p", "power", "power_p", "strips", "strips_p")


def cost(model: str, width: int, heights: list[int]) -> None:
    """Print seconds per megapixel and peak memory of canvases of one width."""
    table = HistoloomPipeline.load(find_model(model)).table
    drawn = draw_layouts(LayoutConfig(two_types=0.0), table, 1, 0, width)[0]
    with tempfile.TemporaryDirectory() as folder:
        for height in heights:
            layout = np.tile(drawn, (-(-height // width), 1))[:height]
            Image.fromarray(layout).save(f"{folder}/{height}.png")
            words = f"-m histoloom canvas {model} --map {folder}/{height}.png --mpp 1.5 --out {folder}/{height}.tif"
            process = os.posix_spawn(sys.executable, [sys.executable, *words.split()], dict(os.environ))
            _, status, used = os.wait4(process, 0)
            assert status == 0, words
            seconds, area = used.ru_utime + used.ru_stime, width * height / 1e6
            print(
                f"{width} x {height}: {seconds:.1f} s, {seconds / area:.1f} s per megapixel, "
                f"{used.ru_maxrss / 1e6:.2f} GB",
                flush=True,
            )


def overhead(model: str, size: int, patches: int) -> None:
    """Print the cost of a canvas against that of as many single patches as cover it."""
    pipeline = HistoloomPipeline.load(find_model(model))
    bank = load_bank(Path(find_model("ebhi-seg")) / "crops", pipeline.table)
    layout = draw_layouts(LayoutConfig(two_types=0.0), pipeline.table, 1, 0, size)[0]
    crops = bank.draw(layout, np.random.default_rng(0))
    parts = [layout[y : y + 224, x : x + 224] for y in range(0, 448, 224) for x in range(0, 448, 224)]
    mine = [[crop for crop in crops if (part == crop.tissue).any()] for part in parts]
    pipeline(parts[0], mine[0])
    start = time.process_time()
    for number in range(patches):
        pipeline(parts[number % len(parts)], mine[number % len(parts)], seed=number)
    single = (time.process_time() - start) / patches / 224**2
    start = time.process_time()
    pipeline(layout, crops)
    whole = (time.process_time() - start) / size**2
    print(
        f"{size} px: {1e6 * whole:.1f} s per megapixel; single patches {1e6 * single:.1f}; ratio {whole / single:.2f}"
    )


def compare_seams(model: str, size: int, window: int, seeds: list[int]) -> None:
    """Print the figures of `histoloom.metrics.seams` for three ways to weave the same layouts."""
    pipeline = HistoloomPipeline.load(find_model(model), torch.float32)
    bank = load_bank(Path(find_model("ebhi-seg")) / "crops", pipeline.table)
    pitch = window * 3 // 4
    for seed in seeds:
        layout = draw_layouts(LayoutConfig(two_types=0.0), pipeline.table, seed + 1, 0, size)[seed]
        crops = bank.draw(layout, np.random.default_rng(seed))
        ways = {
            "plain tiling": plain(pipeline, layout, crops, pitch, seed),
            "overlap, fixed grid": field(pipeline, layout, crops, WindowConfig(edge=window, jitter=False), seed),
            "ours": field(pipeline, layout, crops, WindowConfig(edge=window), seed),
        }
        for way, image in ways.items():
            report(f"layout {seed}, {way}", image, pitch)


def plain(pipeline: HistoloomPipeline, layout: np.ndarray, crops: list, edge: int, seed: int) -> np.ndarray:
    """Patches that do not know their neighbors, next to each other."""
    made = np.zeros((*layout.shape, 3), np.uint8)
    for number, (y, x) in enumerate(np.ndindex(*(-(-length // edge) for length in layout.shape))):
        part = layout[y * edge : (y + 1) * edge, x * edge : (x + 1) * edge]
        mine = [crop for crop in crops if (part == crop.tissue).any()]
        made[y * edge : (y + 1) * edge, x * edge : (x + 1) * edge] = pipeline(part, mine, seed=1000 * seed + number)[0]
    return made


def field(pipeline: HistoloomPipeline, layout: np.ndarray, crops: list, windows: WindowConfig, seed: int) -> np.ndarray:
    """One field with these windows."""
    scheduler, sampling = pipeline.resolve(Sampling())
    parts = pipeline.denoiser, pipeline.autoencoder, scheduler, sampling
    return np.concatenate(list(Field(*parts, MapGround(layout, crops), seed, windows).pixels()))


def report(name: str, image: np.ndarray, pitch: int) -> None:
    """Print the figures of one image."""
    found = seams(image, pitch)
    print(f"{name}: " + ", ".join(f"{figure} {getattr(found, figure):.3f}" for figure in FIGURES), flush=True)


def main() -> None:
    """Run one of the three comparisons."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("cost", "overhead", "seams"))
    parser.add_argument("model", nargs="?", default="ebhi-seg-few-steps")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--heights", type=int, nargs="+", default=[1024, 2048, 4096, 8192])
    parser.add_argument("--size", type=int, default=960)
    parser.add_argument("--patches", type=int, default=8)
    parser.add_argument("--window", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--slide", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.what == "cost":
        cost(arguments.model, arguments.width, arguments.heights)
    elif arguments.what == "overhead":
        overhead(arguments.model, arguments.size, arguments.patches)
    elif arguments.slide is None:
        compare_seams(arguments.model, arguments.size, arguments.window, arguments.seeds)
    else:
        with open_slide(arguments.slide) as slide:
            report(arguments.slide.name, slide.read(0, 0, slide.size, slide.mpp), arguments.window * 3 // 4)


if __name__ == "__main__":
    main()
