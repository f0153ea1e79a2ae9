"""What does an encoder know about tissue? A linear probe: tissue type from features, next to plain color statistics."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from histoloom.errors import InputError, MissingExtraError
from histoloom.files import write_text
from histoloom.metrics.intervals import mean_interval
from histoloom.metrics.lab import rgb_to_lab
from histoloom.patches.heterogeneity import class_fractions
from histoloom.patches.store import Patches
from histoloom.stain import rgb_to_hed
from histoloom.tissue import UNLABELLED


@dataclass(frozen=True)
class Probe:
    """Share of held-out patches whose type is predicted correctly, its 95 % interval over cases, mean over types, n."""

    accuracy: float
    low: float
    high: float
    balanced: float  # mean over types of the share within the type
    n: int


def tissue_labels(semantic_maps: UInt8[np.ndarray, "n h w"], prior: Float[np.ndarray, " k"]) -> Int[np.ndarray, " n"]:
    """The type that stands out most on each map: the highest share over its share `prior` in the training set; -1 for a
    map without labels.

    The most common type would be stroma nearly everywhere.
    """
    shares = np.stack([class_fractions(m, len(prior)) for m in semantic_maps])
    ratios = np.where(prior > 0, shares / np.where(prior > 0, prior, 1), 0)
    return np.where(ratios.any(axis=1), ratios.argmax(axis=1), -1)


def color_statistics(images: UInt8[np.ndarray, "n h w 3"]) -> Float[np.ndarray, "n 45"]:
    """Mean, standard deviation and the 10, 50, 90 % quantiles of red, green, blue, of the dyes (HED) and of Lab."""
    rows = []
    for image in images:
        channels = np.concatenate([image, rgb_to_hed(image), rgb_to_lab(image)], axis=-1).reshape(-1, 9)
        quantiles = np.quantile(channels[::4], [0.1, 0.5, 0.9], axis=0).ravel()
        rows.append(np.concatenate([channels.mean(axis=0), channels.std(axis=0), quantiles]))
    return np.asarray(rows, np.float64).reshape(-1, 45)


def linear_probe(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Int[np.ndarray, " n"],
    features: Float[np.ndarray, "m d"],
    labels: Int[np.ndarray, " m"],
    cases: list[str],
) -> Probe:
    """Logistic regression on standardized features, fitted to one split and judged on another, of other cases (Alain &
    Bengio 2016, "Understanding intermediate layers using linear classifier probes").

    Raises InputError where the training labels are all the same.
    """
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError:
        raise MissingExtraError("scikit-learn", "evaluate") from None
    if len(set(train_labels.tolist())) < 2:
        raise InputError("all training patches show the same tissue type; a probe needs two types at least")
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last digits of convergence do not matter here
        read = classifier.fit(train_features, train_labels).predict(features)
    right = (read == labels).astype(float)
    low, high = mean_interval(right, cases)
    of_type = [right[labels == kind].mean() for kind in np.unique(labels)]
    return Probe(float(right.mean()), low, high, float(np.mean(of_type)), len(right))


def has_types(patches: Patches) -> bool:
    """Whether more than one type stands out on the patches, so that a probe can be learned from them."""
    labels = set(tissue_labels(patches.semantic_maps, _prior(patches, _num_types(patches))).tolist())
    return len(labels - {-1}) > 1


def probe_encoder(
    train: Patches, held: Patches, features: Mapping[str, tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]]
) -> dict[str, Probe]:
    """Probes on features by name, of `train` and `held`, and on color statistics: learned from `train`, judged on
    `held`, of other cases. Patches without labels do not count."""
    prior = _prior(train, max(_num_types(train), _num_types(held)))
    labels = [tissue_labels(part.semantic_maps, prior) for part in (train, held)]
    colors = [color_statistics(part.images) for part in (train, held)]
    read = {**features, "color statistics": (colors[0], colors[1])}
    a, b = (np.flatnonzero(of >= 0) for of in labels)
    cases = [held.cases[i] for i in b.tolist()]
    return {
        name: linear_probe(mine[a], labels[0][a], theirs[b], labels[1][b], cases)
        for name, (mine, theirs) in read.items()
    }


def _num_types(patches: Patches) -> int:
    return 1 + int(patches.semantic_maps[patches.semantic_maps != UNLABELLED].max(initial=0))


def _prior(patches: Patches, num_types: int) -> Float[np.ndarray, " k"]:
    return np.mean([class_fractions(m, num_types) for m in patches.semantic_maps], axis=0)


def write_card(probes: dict[str, Probe], patches: int, start: str, steps: int, seed: int, folder: Path) -> None:
    """Write the encoder's card, `README.md`, into `folder`, with the probes if there are any; raises OutputError."""
    rows = [
        f"| {name} | {100 * p.accuracy:.1f} % [{100 * p.low:.1f}, {100 * p.high:.1f}] "
        f"| {100 * p.balanced:.1f} % | {p.n} |"
        for name, p in probes.items()
    ]
    lines = [
        "# A small encoder of H&E patches",
        "",
        f"Trained without labels by `histoloom train-encoder` on {patches} patches of the split `train`: Barlow Twins, "
        f"{steps} steps, seed {seed}, "
        f"started from {start}. It compares images of the kind that it was trained on; its figures cannot be compared "
        "with published ones, and it is not a diagnostic device.",
    ]
    if rows:
        lines += [
            "",
            "Linear probe: the tissue type that stands out on a patch, learned from `train`, tested on `val`. "
            "Brackets: 95 % over cases.",
            "",
            "| read from | accuracy | mean of types | n |",
            "|---|---|---|---|",
            *rows,
        ]
    write_text(folder / "README.md", "\n".join(lines) + "\n")
