"""Embedding slides: against the encoder alone, and on Ray against one process, with the same bytes.

    python benchmarks/discovery_engine.py [--patches 20000] [--size 128] [--ray 1 2]

Slides are drawn, JPEG-compressed, and cut into patches that overlap; the encoder is the small one with random weights.
The bare rate is that of the encoder on pixels that are in memory already. Of each way the rate stands with the start of
process, cluster and workers and without.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import tifffile
import torch
from PIL import Image

from histoloom.discovery.cutting import Cutting
from histoloom.discovery.embed import embed
from histoloom.discovery.embedding_run import EmbedConfig
from histoloom.discovery.parts import find_parts
from histoloom.distributed import Workers
from histoloom.encoders.encoder import open_encoder
from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder

SLIDES, STRIDE, MPP = 10, 32, 0.5


def draw_slides(folder: Path, patches: int, size: int) -> None:
    """Slides of purple noise with a rim of glass, each with its share of the patches."""
    across = int(np.ceil((patches / SLIDES) ** 0.5))
    edge = size + STRIDE * (across - 1)
    for number in range(SLIDES):
        rng = np.random.default_rng(number)
        coarse = rng.normal(size=(edge // 24, edge // 24)).astype(np.float32)
        noise = np.asarray(Image.fromarray(coarse).resize((edge, edge), Image.Resampling.BICUBIC))
        pixels = np.full((edge, edge + 2 * size, 3), 245, np.uint8)
        grain = rng.normal(size=(edge, edge))
        pixels[:, :edge] = np.clip((noise * 25 + grain * 12)[..., None] + [170, 100, 160], 0, 230)
        tifffile.imwrite(
            folder / f"{number}.tif",
            pixels,
            tile=(256, 256),
            photometric="rgb",
            compression="jpeg",
            resolution=(1e4 / MPP, 1e4 / MPP),
            resolutionunit="CENTIMETER",
        )


def main() -> None:
    """Print one row per way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--ray", type=int, nargs="*", default=[1, 2])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "slides").mkdir()
        torch.manual_seed(0)
        save_small_encoder(SmallEncoder(SmallEncoderConfig()), folder / "encoder")
        draw_slides(folder / "slides", arguments.patches, arguments.size)
        cutting = Cutting(MPP, arguments.size, STRIDE, min_tissue=0.9, min_focus=0.0)
        config = EmbedConfig(str(folder / "encoder"), cutting)
        print("| way | patches | seconds | patches/s | of the bare rate | peak memory, MB |\n|---|---|---|---|---|---|")
        bare = bare_rate(config, arguments.size, min(arguments.patches, 4096))
        print(f"| the encoder alone | | | {bare:.1f} | 1 | {peak():.0f} |", flush=True)
        report("one process", folder, config, bare, "one")
        for workers in arguments.ray:
            report(f"Ray, {workers} workers", folder, config, bare, f"ray{workers}", workers)
        one = {path.name: path.read_bytes() for path in (folder / "one" / "embeddings").iterdir()}
        for workers in arguments.ray:
            other = {path.name: path.read_bytes() for path in (folder / f"ray{workers}" / "embeddings").iterdir()}
            print(f"\nRay with {workers} workers wrote the same bytes as one process: {one == other}")


def bare_rate(config: EmbedConfig, size: int, count: int) -> float:
    """Patches per second of the encoder on pixels in memory."""
    encoder = open_encoder(config.encoder)
    images = np.random.default_rng(0).integers(0, 256, (config.batch_size, size, size, 3)).astype(np.uint8)
    encoder(images)
    start = time.perf_counter()
    for _ in range(0, count, config.batch_size):
        encoder(images)
    return count / (time.perf_counter() - start)


class Clock:
    """A progress bar that notes when each part was done."""

    def __init__(self):
        self.times: list[float] = []

    def advance(self, count: int = 1, note: str = "") -> None:
        self.times.append(time.perf_counter())


def report(name: str, folder: Path, config: EmbedConfig, bare: float, out: str, workers: int = 0) -> None:
    """Embed all slides one way; the first part tells when the workers were up."""
    parts, _ = find_parts(folder / "slides", config.cutting)
    begun, clock = time.perf_counter(), Clock()
    if workers:
        import ray

        ray.init("local", num_cpus=workers, object_store_memory=300 * 2**20, log_to_driver=False, logging_level="error")
    way = {"workers": Workers(ray="local" if workers else ""), "bar": clock}
    done = embed(parts, config, folder / out, folder / "slides", **way)
    seconds = time.perf_counter() - begun
    if workers:
        ray.shutdown()
    rate = done.patches / seconds
    print(
        f"| {name}, start included | {done.patches:,} | {seconds:.1f} | {rate:.1f} | {rate / bare:.2f} | {peak():.0f} |"
    )
    # From one part to the last, the start left out: of `workers` parts at a time the first is not counted.
    first = max(workers, 1)
    steady = done.patches * (len(parts) - first) / len(parts) / (clock.times[-1] - clock.times[first])
    print(f"| {name}, start left out | | | {steady:.1f} | {steady / bare:.2f} | |", flush=True)


def peak() -> float:
    """Peak resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()
