"""The pictures of a report, as PNG bytes: bars with their floors, scores, a map of features, and patches."""

import base64
import io
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure as Canvas
from PIL import Image

from histoloom.evaluation.measures import EncoderFigures, FeatureSets, Figure
from histoloom.metrics.two_sample import TwoSample

REAL, CONTROL, FAKE = "#4477aa", "#bbbbbb", "#cc6644"  # distinct to color-blind readers, and in gray print
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "histoloom",
}


def bars(encoder: EncoderFigures) -> bytes:
    """Precision, recall, density, coverage, each with its interval and its floor."""
    figures = [f for f in encoder.overall if f.name in ("precision", "recall", "density", "coverage")]
    at = np.arange(len(figures))
    spans = np.array([_reach(figure) for figure in figures]).T.clip(0)
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(4.2, 2.8), layout="constrained")
        axes = canvas.subplots()
        axes.bar(
            at - 0.2, [f.measured for f in figures], 0.4, color=FAKE, yerr=spans, ecolor="#333333", label="synthetic"
        )
        axes.bar(at + 0.2, [f.at_best for f in figures], 0.4, color=CONTROL, label="real, other cases")
        axes.set_xticks(at, [f.name for f in figures])
        axes.legend(loc="upper right", frameon=False, fontsize=8)
        return _png(canvas)


def scores(test: TwoSample) -> bytes:
    """The scores that the classifier gave to real and to synthetic images."""
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(4.2, 2.8), layout="constrained")
        axes = canvas.subplots()
        for values, color, name in ((test.real_scores, REAL, "real"), (test.fake_scores, FAKE, "synthetic")):
            axes.hist(values, np.linspace(0, 1, 21).tolist(), color=color, alpha=0.6, label=name)
        axes.set(xlabel="classifier's probability of being synthetic", ylabel="images")
        axes.legend(loc="upper right", frameon=False, fontsize=8)
        return _png(canvas)


def feature_map(features: FeatureSets) -> bytes:
    """All images on the two directions in which real and synthetic features vary most (principal components)."""
    sets = {"real": features.reference, "real, other cases": features.control, "synthetic": features.fake}
    places = principal_plane(np.concatenate(list(sets.values())))
    parts = np.split(places, np.cumsum([len(s) for s in sets.values()])[:-1])
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(4.2, 2.8), layout="constrained")
        axes = canvas.subplots()
        for part, name, color, mark in zip(parts, sets, (REAL, CONTROL, FAKE), "os^", strict=True):
            axes.scatter(*part.T, s=9, c=color, marker=mark, alpha=0.7, linewidths=0, label=name)
        axes.set(xlabel="first principal component", ylabel="second")
        axes.legend(loc="upper right", frameon=False, fontsize=8, markerscale=2)
        return _png(canvas)


def principal_plane(features: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
    """Coordinates on the first two principal components, each with its largest coordinate positive."""
    centered = np.asarray(features, np.float64) - features.mean(axis=0)
    _, _, directions = np.linalg.svd(centered, full_matrices=False)
    places = centered @ directions[:2].T
    return places * np.sign(places[np.abs(places).argmax(axis=0), np.arange(places.shape[1])])


def picture(image: UInt8[np.ndarray, "h w 3"], edge: int = 224) -> bytes:
    """One patch as PNG, its longer edge shrunk to `edge` where it is larger."""
    shown = Image.fromarray(image)
    shown.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    return buffer.getvalue()


def inline(png: bytes) -> str:
    """A data address, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _reach(figure: Figure) -> tuple[float, float]:
    """How far the interval reaches below and above the value; nothing without one."""
    if figure.low is None or figure.high is None:
        return 0.0, 0.0
    return figure.measured - figure.low, figure.high - figure.measured


def _png(canvas: Canvas) -> bytes:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    return buffer.getvalue()
