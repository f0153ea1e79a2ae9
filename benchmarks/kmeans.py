"""k-means at n x d vectors and 100 types: Histoloom, in memory and streamed, against faiss and scikit-learn.

    python benchmarks/kmeans.py [--n 1000000] [--dimensions 384] [--types 100]

Each runs in a process of its own that maps the same file of vectors into memory. Seconds are those of the processor
(user and system) for fitting centroids; the inertia is then taken over all vectors. Memory is the peak resident set
during the fit, mapped vectors included, over the bytes of the vectors.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

BLOCK = 65_536


def write_vectors(path: Path, n: int, d: int, seed: int = 0) -> None:
    """Unit vectors around 300 centers in 24 dimensions, the commonest 300 times as common as the rarest, with noise."""
    rng = np.random.default_rng(seed)
    share = 1 / np.arange(1, 301)
    centers = rng.normal(size=(300, 24)).astype(np.float32)
    spread = rng.normal(size=(24, d)).astype(np.float32) / 5
    vectors = np.lib.format.open_memmap(path, "w+", np.float32, (n, d))
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        types = rng.choice(300, stop - start, p=share / share.sum())
        inner = centers[types] + 0.4 * rng.standard_normal((stop - start, 24), np.float32)
        block = inner @ spread + 0.3 * rng.standard_normal((stop - start, d), np.float32)
        vectors[start:stop] = block / np.linalg.norm(block, axis=1, keepdims=True)


def write_table(vectors: np.ndarray, folder: Path) -> None:
    """The same vectors as a table of embeddings."""
    import pyarrow as pa

    from histoloom.discovery.embeddings import CHOSEN, embedding_schema, open_writer

    columns = embedding_schema("benchmark", "0" * 8, vectors.shape[1], "float32")
    with open_writer(folder / CHOSEN, columns) as writer:
        for start in range(0, len(vectors), BLOCK):
            block = np.array(vectors[start : start + BLOCK])
            count = len(block)
            numbers = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1])
            place = [np.arange(start, start + count), np.zeros(count, np.int64), np.full(count, 256)]
            names = ["slide"] * count
            writer.write_table(pa.table([names, *place, [0.5] * count, names, numbers], schema=columns))


def fit(name: str, vectors: np.ndarray, folder: Path, types: int, seed: int) -> np.ndarray:
    """Centroids by one of the methods."""
    if name.startswith("Histoloom"):
        from histoloom.discovery.cluster import draw_sample
        from histoloom.discovery.embeddings import open_chosen
        from histoloom.discovery.kmeans import SAMPLES, KMeansConfig, find_clusters

        if "Parquet" in name:
            vectors = draw_sample(open_chosen(folder), SAMPLES[-1] * types, seed)
        return find_clusters(vectors, types, KMeansConfig(seed=seed)).centroids
    if name.startswith("faiss"):
        import faiss

        most = {} if "default" in name else {"max_points_per_centroid": len(vectors)}
        engine = faiss.Kmeans(vectors.shape[1], types, niter=25, seed=seed, **most)
        engine.train(vectors)
        return engine.centroids
    from sklearn.cluster import MiniBatchKMeans

    labels = "without" not in name
    return MiniBatchKMeans(types, random_state=seed, n_init=1, compute_labels=labels).fit(vectors).cluster_centers_


def measure(name: str, path: Path, folder: Path, types: int, seed: int, answers: multiprocessing.Queue) -> None:
    """Put (seconds of the processor, peak bytes, mean squared distance over all vectors) into `answers`."""
    import faiss

    vectors = np.load(path, mmap_mode="r")
    rehearsal = np.random.default_rng(0).normal(size=(2000, vectors.shape[1])).astype(np.float32)
    fit(name.replace("Parquet", ""), rehearsal, folder, 10, seed)  # loads what is loaded once
    before = resource.getrusage(resource.RUSAGE_SELF)
    wall = time.perf_counter()
    centroids = fit(name, vectors, folder, types, seed)
    wall = time.perf_counter() - wall
    after, peak = resource.getrusage(resource.RUSAGE_SELF), peak_bytes()
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    index = faiss.IndexFlatL2(vectors.shape[1])
    index.add(np.ascontiguousarray(centroids, np.float32))
    blocks = (np.array(vectors[start : start + BLOCK]) for start in range(0, len(vectors), BLOCK))
    total = sum(float(index.search(block, 1)[0].sum(dtype=np.float64)) for block in blocks)
    answers.put((seconds, wall, peak, total / len(vectors)))


def peak_bytes() -> int:
    """Peak resident set of this process; `ru_maxrss` would begin with that of its parent."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


METHODS = (
    "faiss, all vectors",
    "faiss, default (256 per type)",
    "scikit-learn MiniBatchKMeans",
    "scikit-learn MiniBatchKMeans, without labels",
    "Histoloom",
    "Histoloom, from Parquet",
)


def main() -> None:
    """Print one row per method."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=1_000_000)
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--types", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=METHODS, help="the first is what inertia is divided by")
    arguments = parser.parse_args()
    n, d, types = arguments.n, arguments.dimensions, arguments.types
    print(f"n = {n:,}, d = {d}, k = {types}, seed {arguments.seed}\n")
    print(
        "| method | seconds of the processor | seconds | peak memory / data | inertia / faiss |\n|---|---|---|---|---|"
    )
    context, whole = multiprocessing.get_context("spawn"), None
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_vectors(folder / "vectors.npy", n, d)
        write_table(np.load(folder / "vectors.npy", mmap_mode="r"), folder)
        for method in arguments.methods:
            answers = context.Queue()
            given = (method, folder / "vectors.npy", folder, types, arguments.seed, answers)
            process = context.Process(target=measure, args=given)
            process.start()
            seconds, wall, peak, inertia = answers.get()
            process.join()
            whole = whole or inertia
            print(
                f"| {method} | {seconds:.2f} | {wall:.2f} | {peak / (4 * n * d):.2f} | {inertia / whole:.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
