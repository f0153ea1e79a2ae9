"""Is memory flat in slides and patches? Peak of `discover choose` and `discover cluster` on ever more embeddings.

    python benchmarks/discovery_memory.py [--slides 50 200 800] [--patches 2000] [--keep 500] [--dimensions 120]

Vectors are random and lie in one file a slide, as `histoloom discover embed` leaves them. Each step runs in a process
of its own; of its peak that of a process is taken away which has imported the same and done nothing.
"""

import argparse
import multiprocessing
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa

from histoloom.discovery.choose import ChooseConfig, choose
from histoloom.discovery.cluster import ClusterConfig, cluster
from histoloom.discovery.embeddings import EMBEDDINGS, embedding_schema, open_writer


def write_embeddings(folder: Path, slides: int, patches: int, dimensions: int) -> int:
    """Random vectors in half precision, one file a slide; returns their bytes."""
    (folder / EMBEDDINGS).mkdir(parents=True)
    columns = embedding_schema("random", "0" * 16, dimensions)
    for number in range(slides):
        vectors = np.random.default_rng(number).normal(size=(patches, dimensions)).astype(np.float16)
        rows = {
            "slide": [f"{number}.svs"] * patches,
            "x": np.arange(patches) * 256,
            "y": np.zeros(patches, np.int64),
            "size": np.full(patches, 256),
            "mpp": np.full(patches, 0.5),
            "case_id": [str(number)] * patches,
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimensions),
        }
        with open_writer(folder / EMBEDDINGS / f"{number:05d}.parquet", columns) as writer:
            writer.write_table(pa.table(rows, schema=columns))
    return slides * patches * dimensions * 2


def run(step: str, folder: Path, keep: int, answers: multiprocessing.SimpleQueue) -> None:
    """One step; puts its seconds and the peak resident set of this process, in bytes."""
    start = time.perf_counter()
    if step == "choose":
        choose(folder, ChooseConfig(per_slide=keep))
    elif step == "cluster":
        cluster(folder, ClusterConfig())
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    answers.put((time.perf_counter() - start, int(line.split()[1]) * 1024))


def measured(step: str, folder: Path, keep: int) -> tuple[float, int]:
    """Seconds and peak bytes of a step in a process of its own."""
    context = multiprocessing.get_context("spawn")
    answers = context.SimpleQueue()
    process = context.Process(target=run, args=(step, folder, keep, answers))
    process.start()
    answer = answers.get()
    process.join()
    return answer


def main() -> None:
    """Print one row per number of slides."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slides", type=int, nargs="+", default=[50, 200, 800])
    parser.add_argument("--patches", type=int, default=2000, help="embedded per slide")
    parser.add_argument("--keep", type=int, default=500, help="chosen per slide")
    parser.add_argument("--dimensions", type=int, default=120)
    arguments = parser.parse_args()
    print("| slides | patches | vectors, MB | choose, MB | seconds | cluster, MB | seconds |")
    print("|---|---|---|---|---|---|---|")
    for slides in arguments.slides:
        with tempfile.TemporaryDirectory() as name:
            size = write_embeddings(Path(name), slides, arguments.patches, arguments.dimensions)
            _, idle = measured("nothing", Path(name), arguments.keep)
            cells = []
            for step in ("choose", "cluster"):
                seconds, peak = measured(step, Path(name), arguments.keep)
                cells += [f"{(peak - idle) / 2**20:.0f}", f"{seconds:.0f}"]
            total = slides * arguments.patches
            print(f"| {slides} | {total:,} | {size / 2**20:.0f} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
