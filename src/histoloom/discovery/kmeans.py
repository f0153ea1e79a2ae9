"""k-means for more unit vectors than memory holds: Lloyd's iterations on samples that grow.

Early iterations need only a rough position of the centroids and use few vectors; the last ones use hundreds per
centroid. In between, clusters that are too wide are split and nearly empty ones are merged.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from histoloom.discovery.tree import nearest
from histoloom.errors import ConfigError

SAMPLES = (32, 128, 256)  # vectors per centroid: to compare starts, to split and merge, for the last iterations
ROUNDS = (10, 10, 25)  # maximum Lloyd's iterations on each sample
STARTS = 50  # of the k-means that groups centroids
SETTLED = 1e-3  # iterations stop when one reduces the inertia by less than this share


@dataclass(frozen=True)
class KMeansConfig:
    """How centroids are found, split and merged."""

    starts: int = 3  # the one with the lowest inertia is kept
    split_above: float = 1.5  # clusters are split whose variance exceeds this multiple of the mean variance
    merge_below: float = 0.1  # clusters are merged whose size is below this share of the mean size
    mends: int = 20  # maximum rounds of splitting and merging
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.starts <= 1000 or not 0 <= self.mends <= 1000:
            raise ConfigError(f"starts {self.starts} must be in [1, 1000], mends {self.mends} in [0, 1000]")
        if not 1 < self.split_above < math.inf or not 0 <= self.merge_below < 1:
            raise ConfigError(
                f"split_above {self.split_above} must exceed 1, merge_below {self.merge_below} must be in [0, 1)"
            )
        if not 0 <= self.seed < 2**31:
            raise ConfigError(f"seed {self.seed} must be at least 0 and below 2^31")


@dataclass(frozen=True, eq=False)
class Clusters:
    """Centroids, the number of vectors nearest to each, and their mean squared distance."""

    centroids: Float[np.ndarray, "k d"]
    sizes: Int[np.ndarray, " k"]
    variances: Float[np.ndarray, " k"]

    @property
    def inertia(self) -> float:
        """Mean squared distance of all vectors from their centroids."""
        return float(self.sizes @ self.variances / max(self.sizes.sum(), 1))


def find_clusters(vectors: Float[np.ndarray, "n d"], count: int, config: KMeansConfig) -> Clusters:
    """`count` clusters of vectors in single precision; only a sample of 256 vectors per cluster is copied.

    The same vectors, count and seed give the same clusters. Sizes and variances are those of the sample.
    """
    rng = np.random.default_rng(config.seed)
    order = rng.permutation(len(vectors))
    few, more, many = (vectors[np.sort(order[: share * count])] for share in SAMPLES)
    start = _start(few, count, ROUNDS[0], config, rng)
    found = measure(more, lloyd(more, start, ROUNDS[1], rng))
    for _ in range(config.mends):
        mended = _mend(more, found, config, rng)
        if mended is None or mended.inertia >= found.inertia:
            break
        found = mended
    return measure(many, lloyd(many, found.centroids, ROUNDS[2], rng))


def lloyd(
    vectors: Float[np.ndarray, "n d"], centroids: Float[np.ndarray, "k d"], rounds: int, rng: np.random.Generator
) -> Float[np.ndarray, "k d"]:
    """Centroids after at most `rounds` of Lloyd's iterations by faiss, which splits clusters that become empty."""
    import faiss

    engine = faiss.Kmeans(
        vectors.shape[1],
        len(centroids),
        niter=rounds,
        seed=int(rng.integers(2**31)),
        min_points_per_centroid=1,
        max_points_per_centroid=len(vectors),  # no sampling of its own
        early_stop_threshold=SETTLED,
    )
    engine.train(vectors, init_centroids=centroids)
    return np.asarray(engine.centroids)


def measure(vectors: Float[np.ndarray, "n d"], centroids: Float[np.ndarray, "k d"]) -> Clusters:
    """The clusters around given centroids."""
    types, distances = nearest(vectors, centroids)
    sizes = np.bincount(types, minlength=len(centroids))
    variances = np.bincount(types, distances, len(centroids)) / np.maximum(sizes, 1)
    return Clusters(centroids, sizes, variances)


def nest(
    centroids: Float[np.ndarray, "k d"], sizes: Int[np.ndarray, " k"], levels: tuple[int, ...], seed: int
) -> Int[np.ndarray, "l k"]:
    """Which clusters belong together at each level; every level refines the one before.

    The coarsest level is k-means of the centroids, weighted by size, the best of many starts: it is cheap, and agrees
    better between seeds than merging all the way down. The levels between come from Ward's merges within its types. Ids
    within a level are in order of size, largest first; the last row is the clusters themselves.
    """
    import faiss

    engine = faiss.Kmeans(centroids.shape[1], levels[0], niter=50, nredo=STARTS, seed=seed, min_points_per_centroid=1)
    engine.train(centroids, weights=np.maximum(sizes, 1).astype(np.float32))
    return ward(centroids, sizes, levels, nearest(centroids, np.asarray(engine.centroids))[0])


def ward(
    centroids: Float[np.ndarray, "k d"],
    sizes: Int[np.ndarray, " k"],
    levels: tuple[int, ...],
    within: Int[np.ndarray, " k"] | None = None,
) -> Int[np.ndarray, "l k"]:
    """Which clusters belong together at each level, by merges that raise the inertia least (Ward 1963).

    Merging i and j adds n_i n_j / (n_i + n_j) |c_i - c_j|^2. With `within`, only clusters of equal entries merge.
    """
    center, weight = centroids.astype(np.float64), np.maximum(sizes, 1).astype(np.float64)
    within = np.zeros(len(centroids), np.int64) if within is None else within
    member, rows = np.arange(len(centroids)), {}
    while True:
        alive = np.unique(member)
        if len(alive) in levels:
            rows[len(alive)] = member.copy()
        if len(alive) == min(levels):
            return np.stack([_by_size(rows[level], sizes) for level in levels])
        c, w = center[alive], weight[alive]
        squares = (c**2).sum(1)
        cost = (squares[:, None] + squares - 2 * c @ c.T) * w[:, None] * w / (w[:, None] + w)
        cost[np.tril_indices(len(alive))] = np.inf
        cost[within[alive][:, None] != within[alive]] = np.inf
        i, j = alive[list(np.unravel_index(cost.argmin(), cost.shape))]
        center[i] = (weight[i] * center[i] + weight[j] * center[j]) / (weight[i] + weight[j])
        weight[i] += weight[j]
        member[member == j] = i


def _by_size(member: Int[np.ndarray, " k"], sizes: Int[np.ndarray, " k"]) -> Int[np.ndarray, " k"]:
    names, types = np.unique(member, return_inverse=True)
    if len(names) == len(member):
        return types
    totals = np.bincount(types, sizes)
    rank = np.empty(len(names), np.int64)
    rank[np.argsort(-totals, kind="stable")] = np.arange(len(names))
    return rank[types]


def _start(
    vectors: np.ndarray, count: int, rounds: int, config: KMeansConfig, rng: np.random.Generator
) -> Float[np.ndarray, "k d"]:
    """The best of several starts by k-means++ (Arthur & Vassilvitskii 2007)."""
    tries = [lloyd(vectors, _plus_plus(vectors, count, rng), rounds, rng) for _ in range(config.starts)]
    return min(tries, key=lambda centroids: measure(vectors, centroids).inertia)


def _plus_plus(vectors: np.ndarray, count: int, rng: np.random.Generator) -> Float[np.ndarray, "k d"]:
    """Vectors drawn one by one with probability proportional to the squared distance to those drawn before."""
    chosen = [int(rng.integers(len(vectors)))]
    squares = np.einsum("nd,nd->n", vectors, vectors)
    near = np.full(len(vectors), np.inf, np.float32)
    for _ in range(count - 1):
        last = vectors[chosen[-1]]
        near = np.minimum(near, np.maximum(squares + last @ last - 2 * (vectors @ last), 0))
        near[chosen[-1]] = 0
        chances = np.cumsum(near, dtype=np.float64)
        drawn = int(np.searchsorted(chances, rng.random() * chances[-1], side="right"))
        chosen.append(min(drawn, len(vectors) - 1))
    return vectors[chosen]


def _mend(vectors: np.ndarray, found: Clusters, config: KMeansConfig, rng: np.random.Generator) -> Clusters | None:
    """Clusters after wide ones are split in two and as many are merged, nearly empty ones first; None where all fit."""
    small = found.sizes < config.merge_below * found.sizes.mean()
    mean = found.inertia
    wide = np.flatnonzero((found.variances > config.split_above * mean) & (found.sizes > 1))
    spread = found.sizes * found.variances
    wanted = max(int(small.sum()), len(wide))
    if not wanted:
        return None
    split = np.argsort(-spread, kind="stable")[:wanted] if len(wide) < wanted else wide
    types, _ = nearest(vectors, found.centroids)
    parts = [
        lloyd(own, _plus_plus(own, 2, rng), 5, rng) for own in (vectors[types == i] for i in split) if len(own) > 1
    ]
    keep = np.setdiff1d(np.arange(len(found.sizes)), split[: len(parts)])
    more = measure(vectors, np.concatenate([found.centroids[keep], *parts]))
    weight = np.where(more.sizes < config.merge_below * found.sizes.mean(), 1, more.sizes)  # cheap to merge
    member = ward(more.centroids, weight, (len(found.sizes),))[0]
    totals = np.bincount(member, np.maximum(more.sizes, 1e-9))
    merged = np.stack(
        [np.bincount(member, np.maximum(more.sizes, 1e-9) * column) / totals for column in more.centroids.T], 1
    )
    return measure(vectors, lloyd(vectors, merged.astype(np.float32), 3, rng))
