"""How well a distilled classifier names types on unseen cases, and what it costs beside the encoder it replaces."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
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

ANSWERS = "answers.parquet"
TIMED = 64  # windows on which cost is measured


@dataclass(frozen=True)
class DistillReport:
    """Everything that card and report.json say."""

    levels: list[LevelReport]
    windows: int  # tested
    cases: int  # of them
    held_out: int  # windows of which those were drawn
    learned_windows: int
    learned_cases: int
    parameters: int
    classifier: Cost
    encoder: Cost
    encoder_name: str
    config: Distillation

    def table(self) -> str:
        """A markdown table, a row per level."""
        lines = ["| types | top-1 | top-5 | commonest type | calibration error |", "|---|---|---|---|---|"]
        lines += [
            f"| {r.types} | {100 * r.top1:.1f} % | {100 * r.top5:.1f} % | {100 * r.commonest:.1f} % | "
            f"{r.calibration_error:.3f} |"
            for r in self.levels
        ]
        return "\n".join(lines)

    def cost_line(self) -> str:
        """What is saved, or that nothing is."""
        mine, other = self.classifier, self.encoder
        operations = other.multiply_adds / mine.multiply_adds
        speed = mine.windows_per_core_second / max(other.windows_per_core_second, 1e-9)
        line = (
            f"a window takes {mine.multiply_adds / 1e6:.0f} M multiply-adds, of {self.encoder_name} "
            f"{other.multiply_adds / 1e6:.0f} M ({operations:.1f} times as many); {mine.windows_per_core_second:.0f} "
            f"against {other.windows_per_core_second:.0f} windows per second of one core ({speed:.1f} times as fast)"
        )
        return line if speed > 1.2 else f"{line}: nothing is saved, this encoder is as small; ask it itself (--by)"


def draw_tested(assigned: Assigned, config: Distillation) -> Int[np.ndarray, " m"]:
    """Indices of the windows of held-out cases on which it is tested: all, or as many as `most_tested`, drawn."""
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
    advance: Callable[[int], None] = lambda windows: None,
) -> tuple[DistillReport, pa.Table]:
    """Test on windows of the held-out cases, and measure the cost of classifier and encoder on some of them.

    Returns the report, and each tested window with its finest type, the answer and the confidence in it. `advance` is
    told of windows as they are named.
    """
    held = assigned.held_out(config.val_share, config.loop.seed)
    tested, learned = draw_tested(assigned, config), np.flatnonzero(~held)
    probabilities = probabilities_of(classifier, assigned, read, tested, advance)
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
    """Write what was said of each tested window beside the classifier."""
    aside = folder / f"{ANSWERS}.partial"
    pq.write_table(answers, aside, compression="zstd")
    os.replace(aside, folder / ANSWERS)


def write_card(report: DistillReport, folder: Path) -> None:
    """Write `README.md` and `report.json` beside the classifier."""
    config = report.config.model
    shape = f"{config.model}, {config.depth} blocks, {config.input} px, tokens of {config.patch} px"
    drawn = "" if report.windows == report.held_out else f", drawn from {report.held_out:,}"
    tested = f"Tested on {report.windows:,} windows of {report.cases} cases that it had not seen{drawn}"
    trained = f"trained on {report.learned_windows:,} of {report.learned_cases} others"
    text = f"""# A classifier of discovered tissue types

A vision transformer of {report.parameters / 1e6:.1f} M parameters ({shape}) that names what the encoder
`{report.encoder_name}` and its clusters name. It was taught their answers, not a pathologist's: a type is a look, and
what it means is for people to say.

{tested}, {trained}, seed {report.config.loop.seed}. Coarse levels sum the probabilities of their finer types.
"Commonest type" is the top-1 of always naming the type that training saw most.

{report.table()}

The paper (arXiv 2509.17847) reports 47 % top-1 over 100 types, on other tissue and other types.

Cost: {report.cost_line()}. Seconds are those of the processor, measured where this was trained.

`report.json` has the reliability of every level: mean confidence, accuracy and windows of each bin. `{ANSWERS}` has
each tested window with its finest type, the answer, and the confidence in it.
"""
    for name, content in (("README.md", text), ("report.json", json.dumps(asdict(report), indent=2) + "\n")):
        aside = folder / f"{name}.partial"
        aside.write_text(content, encoding="utf-8")
        os.replace(aside, folder / name)
