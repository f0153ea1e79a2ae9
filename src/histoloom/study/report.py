"""The report of a reader study: one page, every figure as JSON and CSV, every answer as CSV.

    REPORT/
      report.html        the answer by the margin, then all figures
      report.json        the same figures
      figures.csv        one row per figure: scope, name, reader, value, low, high, n, p, variance
      answers.csv        one row per answer, with what the item was
      record.json        the answers and the key that the report is made of

A report replaces the one before, since answers grow.
"""

import csv
import io
from dataclasses import asdict
from pathlib import Path

import jinja2

from histoloom import files
from histoloom.evaluation.plain import plain
from histoloom.locks import locked
from histoloom.readers.equivalence import Answer as Verdict
from histoloom.records import Record, fingerprint
from histoloom.study.analysis import Analysis, Figure, analyze
from histoloom.study.answers import RATINGS, Answer, read_answers
from histoloom.study.folder import ANSWERS, FORMAT, KEY, open_study, read_key
from histoloom.study.readings import join
from histoloom.version import VERSION

COMMAND = "study report"
SENTENCES = {
    Verdict.CANNOT: "Readers cannot tell synthetic images from real ones: the interval is below the margin {margin}.",
    Verdict.CAN: "Readers can tell synthetic images from real ones: the interval is above chance.",
    Verdict.REVERSED: "Readers see a difference, and take synthetic images for real: the interval is below chance.",
    Verdict.OPEN: "Not decided: the interval reaches both chance and the margin {margin}; more answers are needed.",
}
NO_INTERVAL = "Not decided: so few answers, or answers so alike, show no interval; more answers are needed."


def write_report(folder: Path, out: Path, key: Path | None = None) -> Analysis:
    """Analyze the answers of a study, and write the report to `out`.

    Raises InputError where answers or key are missing, OutputError where `out` holds anything but a report.
    """
    study, truth = open_study(folder), read_key(folder, key)
    answers = read_answers(folder / ANSWERS)
    analysis = analyze(join(answers, truth, list(study.orders)), float(truth["margin"]))
    if (files.read_record(out) or {}).get("command") != COMMAND:
        files.refuse_existing(out)
    inputs = {"key": fingerprint(key or folder / KEY)}
    settings = {"answers": [asdict(answer) for answer in answers]}
    with locked(out), files.replaced_folder(out) as aside:
        files.write_text(aside / "report.html", _page(analysis, folder.resolve().name))
        files.write_json(aside / "report.json", plain(asdict(analysis) | {"version": VERSION, "seed": truth["seed"]}))
        files.write_text(aside / "figures.csv", _csv([asdict(figure) for figure in analysis.figures]))
        rows = [_row(answer, truth["items"][answer.item]) for answer in answers]
        files.write_text(aside / "answers.csv", _csv(rows))
        files.write_record(aside, Record(command=COMMAND, format=FORMAT, settings=settings, inputs=inputs))
    return analysis


def sentence(analysis: Analysis) -> str:
    """The answer of a study in words."""
    auc = analysis.auc
    found = SENTENCES[analysis.answer].format(margin=f"{analysis.margin:.2f}") if auc.low == auc.low else NO_INTERVAL
    return f"{found} AUC {auc.value:.2f} {span(auc)}."


def span(figure: Figure) -> str:
    """The interval of a figure."""
    return f"[{figure.low:.2f}, {figure.high:.2f}]" if figure.low == figure.low else "[no interval]"


def _row(answer: Answer, item: dict) -> dict:
    names, cases = ([image[of] for image in item["images"]] for of in ("name", "case"))
    sources = {"source": " | ".join(names), "case": " | ".join(cases)}
    about = {name: item.get(name, "") for name in ("kind", "role", "tissue", "repeats")}
    ratings = {name: answer.ratings[name] for name in RATINGS}
    given = {"reader": answer.reader, "item": answer.item, "answer": answer.answer, "at": answer.at}
    return given | ratings | about | sources


def _csv(rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: "" if value is None or value != value else value for name, value in row.items()})
    return text.getvalue()


def _page(analysis: Analysis, name: str) -> str:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"span": span, "number": lambda value: f"{value:.3f}" if value == value else "–"}
    of_readers = [figure for figure in analysis.figures if figure.reader != "mean of readers"]
    names = list(dict.fromkeys(figure.name for figure in of_readers))
    readers = {
        reader: {figure.name: figure for figure in of_readers if figure.reader == reader}
        for reader in dict.fromkeys(figure.reader for figure in of_readers)
    }
    means = [figure for figure in analysis.figures if figure.reader == "mean of readers" and figure.scope == "all"]
    return environment.get_template("report.html.jinja").render(
        analysis=analysis, name=name, sentence=sentence(analysis), readers=readers, names=names, means=means,
        tissues=[figure for figure in analysis.figures if figure.scope != "all"], version=VERSION,
    )  # fmt: skip
