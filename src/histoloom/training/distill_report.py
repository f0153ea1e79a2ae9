"""How well a distilled classifier names types on unseen cases, and what it costs beside the encoder it replaces."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from histoloom.discovery.classifier import Classifier
from histoloom.discovery.windows import Assigned, ReadWindow
from histoloom.encoders.encoder import Encoder
from histoloom.training.distill import (
    Cost,
    Distillation,
    LevelReport,
    cost_of,
    probabilities_of,
    report_level,
)  # fmt: skip

TIMED = 64  # windows on which cost is measured


@dataclass(frozen=True)
class DistilReport:
    """Everything that card and report.json say."""

    levels: list[LevelReport]
    windows: int  # tested
    cases: int  # of them
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


def examine(
    classifier: Classifier, encoder: Encoder, assigned: Assigned, read: ReadWindow, config: Distillation
) -> DistilReport:
    """Test on the windows of the held-out cases, and measure the cost of classifier and encoder on some of them."""
    held = assigned.held_out(config.val_share, config.loop.seed)
    tested, learned = np.flatnonzero(held), np.flatnonzero(~held)
    probabilities = probabilities_of(classifier, assigned, read, tested)
    types = assigned.types
    levels = [report_level(probabilities, types[tested], types[learned], row) for row in classifier.tree.ancestors]
    some = np.stack([read(assigned.slides[i], *assigned.places[i].tolist()) for i in tested[:TIMED].tolist()])
    cases = np.array(assigned.cases)
    return DistilReport(
        levels,
        len(tested),
        len(set(cases[tested].tolist())),
        len(learned),
        len(set(cases[learned].tolist())),
        sum(p.numel() for p in classifier.network.parameters()),
        cost_of(classifier, some),
        cost_of(encoder, some),
        encoder.name,
        config,
    )


def write_card(report: DistilReport, folder: Path) -> None:
    """Write `README.md` and `report.json` beside the classifier."""
    config = report.config.model
    shape = f"{config.model}, {config.depth} blocks, {config.input} px, tokens of {config.patch} px"
    tested = f"Tested on {report.windows:,} windows of {report.cases} cases that it had not seen"
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

`report.json` has the reliability of every level: mean confidence, accuracy and windows of each bin.
"""
    for name, content in (("README.md", text), ("report.json", json.dumps(asdict(report), indent=2) + "\n")):
        aside = folder / f"{name}.partial"
        aside.write_text(content, encoding="utf-8")
        os.replace(aside, folder / name)
