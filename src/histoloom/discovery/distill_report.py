"""Accuracy of a distilled classifier on unseen cases, and its cost next to the encoder that it replaces."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from histoloom.discovery.classifier import Classifier
from histoloom.discovery.distill import (
    Cost,
    Distillation,
    LevelReport,
    cost_of,
    probabilities_of,
    report_level,
)  # fmt: skip
from histoloom.discovery.windows import Assigned, ReadWindow
from histoloom.encoders.encoder import Encoder
from histoloom.files import whole_file, write_json, write_text
from histoloom.parquet import parquet_writer
from histoloom.progress import SILENT, Bar

ANSWERS, REPORT = "answers.parquet", "report.json"
TIMED = 64  # windows for measuring the cost


@dataclass(frozen=True)
class DistillReport:
    """The content of README.md and report.json."""

    levels: list[LevelReport]
    windows: int  # for testing
    cases: int  # of those
    held_out: int  # windows from which those were drawn
    learned_windows: int
    learned_cases: int
    parameters: int
    classifier: Cost
    encoder: Cost
    encoder_name: str
    config: Distillation

    def table(self) -> str:
        """A markdown table, a row per level."""
        lines = ["| types | top-1 | top-5 | most common type | calibration error |", "|---|---|---|---|---|"]
        lines += [
            f"| {r.types} | {100 * r.top1:.1f} % | {100 * r.top5:.1f} % | {100 * r.commonest:.1f} % | "
            f"{r.calibration_error:.3f} |"
            for r in self.levels
        ]
        return "\n".join(lines)

    def cost_line(self) -> str:
        """How much cheaper than the encoder the classifier is, or that it is not."""
        mine, other = self.classifier, self.encoder
        operations = other.multiply_adds / mine.multiply_adds
        speed = mine.windows_per_core_second / max(other.windows_per_core_second, 1e-9)
        line = (
            f"one window takes {mine.multiply_adds / 1e6:.0f} M multiply-adds, with {self.encoder_name} "
            f"{other.multiply_adds / 1e6:.0f} M ({operations:.1f} times as many); one core classifies "
            f"{mine.windows_per_core_second:.0f} windows per second, with the encoder "
            f"{other.windows_per_core_second:.0f} ({speed:.1f} times as fast)"
        )
        return line if speed > 1.2 else f"{line}: nothing is saved, the encoder is as fast; use it directly (--by)"


def draw_tested(assigned: Assigned, config: Distillation) -> Int[np.ndarray, " m"]:
    """Indices of the test windows: all of the held-out cases, or a random `most_tested` of them."""
    held = np.flatnonzero(assigned.held_out(config.val_share, config.loop.seed))
    if len(held) <= config.most_tested:
        return held
    return np.sort(np.random.default_rng(config.loop.seed).choice(held, config.most_tested, replace=False))


def examine(
    classifier: Classifier,
    encoder: Encoder,
    assigned: Assigned,
    read: ReadWindow,
    config: Distillation,
    bar: Bar = SILENT,
) -> tuple[DistillReport, pa.Table]:
    """Test on windows of the held-out cases, and measure the cost of classifier and encoder on some of them.

    Returns the report, and each test window with its finest type, the prediction and its confidence.
    """
    held = assigned.held_out(config.val_share, config.loop.seed)
    tested, learned = draw_tested(assigned, config), np.flatnonzero(~held)
    probabilities = probabilities_of(classifier, assigned, read, tested, bar)
    types = assigned.types
    levels = [report_level(probabilities, types[tested], types[learned], row) for row in classifier.tree.ancestors]
    some = np.stack([read(assigned.slides[i], *assigned.places[i].tolist()) for i in tested[:TIMED].tolist()])
    report = DistillReport(
        levels,
        len(tested),
        len({assigned.cases[i] for i in tested.tolist()}),
        int(held.sum()),
        len(learned),
        len({assigned.cases[i] for i in learned.tolist()}),
        sum(p.numel() for p in classifier.network.parameters()),
        cost_of(classifier, some),
        cost_of(encoder, some),
        encoder.name,
        config,
    )
    x, y, size = assigned.places[tested].T
    slides = [assigned.slides[i] for i in tested.tolist()]
    answers = [types[tested], probabilities.argmax(1), probabilities.max(1)]
    return report, pa.table([slides, x, y, size, *answers], ["slide", "x", "y", "size", "type", "answer", "confidence"])


def write_answers(answers: pa.Table, folder: Path) -> None:
    """Write the prediction for each test window next to the classifier."""
    with whole_file(folder / ANSWERS) as aside, parquet_writer(aside, answers.schema, compression="zstd") as writer:
        writer.write_table(answers)


def write_card(report: DistillReport, folder: Path) -> None:
    """Write `README.md` and `report.json` next to the classifier."""
    config = report.config.model
    shape = f"{config.model}, {config.depth} blocks, {config.input} px, tokens of {config.patch} px"
    drawn = "" if report.windows == report.held_out else f", drawn from {report.held_out:,}"
    tested = f"Tested on {report.windows:,} windows of {report.cases} unseen cases{drawn}"
    trained = f"trained on {report.learned_windows:,} windows of {report.learned_cases} other cases"
    text = f"""# A classifier of discovered tissue types

A vision transformer of {report.parameters / 1e6:.1f} M parameters ({shape}) that predicts the clusters of the encoder
`{report.encoder_name}`. It learned their assignments, not a pathologist's: a type is an appearance, and people have to
say what it means.

{tested}, {trained}, seed {report.config.loop.seed}. Coarse levels sum the probabilities of their finer types.
"Most common type" is the top-1 of always predicting the type that is most common in training.

{report.table()}

The paper (arXiv 2509.17847) reports 47 % top-1 over 100 types, on other tissue and other types.

Cost: {report.cost_line()}. Measured in processor time on the machine of the training.

`report.json` has the reliability of every level: mean confidence, accuracy and windows of each bin. `{ANSWERS}` has
each test window with its finest type, the prediction, and its confidence.
"""
    write_text(folder / "README.md", text)
    write_json(folder / REPORT, asdict(report) | {"table": report.table(), "cost": report.cost_line()})
