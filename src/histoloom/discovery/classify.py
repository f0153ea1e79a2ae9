"""Train, save and test a classifier of discovered types, as one run that resumes.

Every file is the same after a kill, but for the seconds in README.md and report.json, which are measured.
"""

from dataclasses import dataclass
from pathlib import Path

from histoloom.discovery.classifier import check_encoder, save_classifier
from histoloom.discovery.cluster import ASSIGNMENTS
from histoloom.discovery.distill import Distillation, distill
from histoloom.discovery.distill_report import REPORT, draw_tested, examine, write_answers, write_card
from histoloom.discovery.embedding_run import read_embedding
from histoloom.discovery.tree import TABLE, TypeTree
from histoloom.discovery.windows import open_windows, read_assigned
from histoloom.encoders.encoder import open_encoder
from histoloom.files import run_folder
from histoloom.fitting.loop import identity_of, show_on
from histoloom.progress import Progress, silent
from histoloom.records import Record, fingerprint, read_json

COMMAND, FORMAT = "discover classify", 1


@dataclass(frozen=True)
class Tested:
    """What a run reports: a Markdown table of accuracy by level, and the cost in one line."""

    table: str
    cost: str


def classify(
    discovered: Path,
    config: Distillation,
    out: Path,
    progress: Progress = silent,
    allow_remote_code: bool = False,
) -> Tested:
    """Distill the types in `discovered` into a classifier in `out`; continues an interrupted run.

    Where `out` is finished, nothing is done. Raises OutputError where it holds a run with other types or settings,
    ModelError where the encoder is not the one of the types.
    """
    tree, assigned = TypeTree.load(discovered), read_assigned(discovered)
    settings = identity_of(config) | {"encoder": tree.fingerprint, "steps": config.loop.steps}
    inputs = {name: fingerprint(discovered / name) for name in (TABLE, ASSIGNMENTS)}
    with run_folder(out, Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs)):
        if (out / REPORT).is_file():  # written last
            report = read_json(out / REPORT)
            return Tested(str(report.get("table", "")), str(report.get("cost", "")))
        read, window = open_windows(discovered)
        encoder = open_encoder(read_embedding(discovered)[1].encoder, allow_remote_code=allow_remote_code)
        check_encoder(tree, encoder)
        with progress("classifier", config.loop.steps, "steps") as bar:
            classifier = distill(assigned, tree, read, window, config, out, show_on(bar))
        save_classifier(classifier, out)
        with progress("testing", len(draw_tested(assigned, config)), "windows") as bar:
            found, answers = examine(classifier, encoder, assigned, read, config, bar)
        write_answers(answers, out)
        write_card(found, out)
    return Tested(found.table(), found.cost_line())
