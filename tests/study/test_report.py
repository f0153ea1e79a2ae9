"""The report: readers of known skill get the figures and the answer that they deserve."""

import csv
import json
import os
import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest
from folders import files

from histoloom.errors import InputError, OutputError
from histoloom.readers import Answer as Verdict
from histoloom.readers import reader_estimates, successes
from histoloom.study.analysis import analyze
from histoloom.study.answers import RATINGS, Answer, opened_answers
from histoloom.study.create import create_study
from histoloom.study.folder import ANSWERS, KEY, open_study, read_key
from histoloom.study.readings import Readings, join
from histoloom.study.report import sentence, write_report
from histoloom.study.settings import StudyConfig


def drawn(readers: int, n: int, skill: float, seed: int = 0) -> Readings:
    """Readings of n items, half of them synthetic; `skill` is the separation of scores in standard deviations."""
    rng = np.random.default_rng(seed)
    kinds = ["real", "synthetic"] * (n // 2)
    scores = skill * (np.array(kinds) == "synthetic") + rng.standard_normal((readers, n))
    steps = np.digitize(scores, np.array([-1.0, -0.5, 0.0, 0.5, 1.0]) + skill / 2) + 1.0
    names = [f"{i:03d}" for i in range(n)]
    return Readings(
        [f"reader-{i}" for i in range(readers)], names, kinds, ["main"] * n, ["a", "a", "b", "b"] * (n // 4), names,
        [""] * n, False, steps, rng.integers(1, 6, (readers, n, 4)).astype(float),
    )  # fmt: skip


@pytest.mark.parametrize(("skill", "expected"), [(0.0, Verdict.CANNOT), (1.5, Verdict.CAN), (-1.5, Verdict.REVERSED)])
def test_the_answer_is_that_of_the_skill(skill, expected):
    found = analyze(drawn(6, 200, skill), 0.6)
    assert found.answer is expected
    assert found.auc == found.figures[0]
    by_other_method = next(figure for figure in found.figures if "Obuchowski" in figure.name)
    assert by_other_method.value == pytest.approx(found.auc.value)
    assert by_other_method.low == pytest.approx(found.auc.low, abs=0.02)


def test_readers_who_are_always_wrong_and_readers_who_say_nothing():
    readings = drawn(2, 20, 0.0)
    wrong = np.tile([6.0, 1.0], (2, 10))
    found = analyze(replace(readings, scores=wrong), 0.6)
    assert found.answer is Verdict.REVERSED
    assert (found.auc.low, found.auc.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 10)))
    assert found.auc.p == pytest.approx(2 * 0.5**10)
    found = analyze(replace(readings, scores=np.full((2, 20), 3.0)), 0.6)
    assert found.answer is Verdict.OPEN
    assert sentence(found).startswith("Not decided: so few answers, or answers so alike, show no interval")


def test_few_guesses_decide_nothing():
    found = analyze(drawn(3, 12, 0.0), 0.6)
    assert found.answer is Verdict.OPEN
    assert sentence(found).startswith("Not decided")


def test_figures_are_those_of_the_answers():
    readings = drawn(2, 8, 0.0)
    scores = np.array([[1, 6, 1, 6, 4, 6, 1, 3], [1, 6, 1, 6, 1, 6, 1, 6]], float)
    found = analyze(replace(readings, scores=scores), 0.6)
    of = {(figure.name, figure.reader): figure for figure in found.figures if figure.scope == "all"}
    assert of["accuracy", "reader-0"].value == 6 / 8
    assert of["sensitivity", "reader-0"].value == 3 / 4
    assert of["specificity", "reader-0"].value == 3 / 4
    assert of["accuracy", "mean of readers"].value == 7 / 8
    assert of["AUC", "reader-1"].value == 1
    alone = reader_estimates(successes(scores, np.array(readings.kinds) == "synthetic"))[0]
    assert of["AUC", "reader-0"].variance == alone.variance > 0
    wins = sum((f > r) + (f == r) / 2 for f in (6, 6, 6, 3) for r in (1, 1, 4, 1)) / 16
    assert of["AUC", "reader-0"].value == wins
    assert found.auc.value == (1 + wins) / 2
    assert of["stain: mean of real", "mean of readers"].value == readings.ratings[:, ::2, 1].mean()
    assert {figure.scope for figure in found.figures} == {"all", "a", "b"}


def test_ratings_that_differ_are_found():
    readings = drawn(4, 80, 0.0)
    is_real = np.array(readings.kinds) == "real"
    ratings = readings.ratings.copy()
    ratings[:, is_real, 0] = np.minimum(ratings[:, is_real, 0] + 2, 5)
    found = analyze(replace(readings, ratings=ratings), 0.6)
    p = {figure.name: figure for figure in found.figures}
    assert p["detail: real rated above synthetic"].low > 0.5
    assert p["detail: real rated above synthetic"].p < 0.01
    assert p["stain: real rated above synthetic"].low < 0.5 < p["stain: real rated above synthetic"].high


def test_missing_answers_readers_and_cases_are_noted():
    readings = drawn(3, 40, 1.0)
    scores = readings.scores.copy()
    scores[1, 30:] = np.nan
    scores[2] = np.nan
    notes = analyze(replace(readings, scores=scores, cases=["one"] * 20 + ["two"] * 20), 0.6).notes
    assert notes == [
        "reader-2 has answered no item that counts, and is left out",
        "reader-1 has not answered 10 items",
        "40 items show 2 cases; intervals count items as independent",
    ]
    alone = analyze(readings.select(np.array([True, False, False])), 0.6)
    assert "one reader" in alone.notes[0]
    assert alone.auc.value == next(f.value for f in alone.figures if f.reader == "reader-0" and f.name == "AUC")
    with pytest.raises(InputError, match="no reader has answered an item yet"):
        analyze(replace(readings, scores=np.full((3, 40), np.nan)), 0.6)


def answer_all(folder, judge, but: int = 0) -> None:
    """Let every reader answer by `judge(item of the key)`, the last one all but the last `but` items."""
    key, study = read_key(folder)["items"], open_study(folder)
    with opened_answers(folder / ANSWERS, is_new=True) as answers:
        answers.add_readers(list(study.orders))
        for number, (reader, order) in enumerate(study.orders.items(), 1):
            for item in order[: len(order) - but * (number == len(study.orders))]:
                ratings = {} if study.is_pairs else dict.fromkeys(RATINGS, 3)
                answers.add(Answer(reader, item, judge(key[item]), ratings))


def test_a_report_of_readers_who_always_know(sides, tmp_path):
    folder = tmp_path / "study"
    create_study(sides, StudyConfig(n=20, readers=2, repeats=0.2), folder, decode=lambda image: image, model="copy")
    answer_all(folder, lambda item: 6 if item["kind"] == "synthetic" else 1, but=3)
    found = write_report(folder, folder / "report")
    of = {(figure.name, figure.reader): figure for figure in found.figures if figure.scope == "all"}
    assert found.auc.value == of["repeats judged alike", "mean of readers"].value == 1
    assert of["AUC of decoded real images", "mean of readers"].value == 0.5
    assert of["AUC of real images against real images", "mean of readers"].value == 0.5
    assert "reader-2 has not answered 3 items" in found.notes
    report = folder / "report"
    page = (report / "report.html").read_text()
    assert "sensitivity" in page
    assert "<script" not in page
    assert "http" not in page
    rows = list(csv.DictReader((report / "answers.csv").open()))
    assert {row["kind"] for row in rows} == {"real", "synthetic", "control", "decoded"}
    assert len(rows) == sum(len(order) for order in open_study(folder).orders.values()) - 3
    figures = list(csv.DictReader((report / "figures.csv").open()))
    assert figures[0]["value"] == "1.0"
    # All are told apart: the exact interval over ten comparisons of a synthetic and a real image that share none.
    assert (found.auc.low, found.auc.high) == (pytest.approx(0.025 ** (1 / 10)), 1.0)
    assert found.answer is Verdict.CAN
    assert (
        sentence(found)
        == "Readers can tell synthetic images from real ones: the interval is above chance. AUC 1.00 [0.69, 1.00]."
    )
    assert of["accuracy", "mean of readers"].low == pytest.approx(0.025 ** (1 / 20))
    assert json.loads((report / "report.json").read_text())["margin"] == 0.6
    (report / "figures.csv").unlink()
    write_report(folder, report)  # replaces it
    assert (report / "figures.csv").is_file()


def test_pairs_are_right_where_the_real_side_was_chosen(sides, tmp_path):
    folder = tmp_path / "study"
    create_study(sides, StudyConfig(n=20, readers=2, mode="pairs", repeats=0.2), folder)
    answer_all(folder, lambda item: 1 if item["images"][0]["kind"] == "real" else 6)
    found = write_report(folder, tmp_path / "report")
    of = {(figure.name, figure.reader): figure.value for figure in found.figures if figure.scope == "all"}
    assert of["AUC", "mean of readers"] == of["accuracy", "reader-1"] == of["repeats judged alike", "reader-1"] == 1
    assert of["left side chosen of two real images", "mean of readers"] == 1
    assert "architecture" not in (tmp_path / "report" / "report.html").read_text()


def test_a_pair_counts_for_the_case_of_its_real_image_and_names_both(sides, tmp_path):
    """Synthetic images without a known case would count as a case each, and hide that few patients are shown."""
    real, fake = sides
    real = replace(real, cases=[f"P{number % 3}" for number in range(len(real))])
    unknown = replace(fake, cases=fake.names)
    create_study((real, unknown), StudyConfig(n=20, readers=1, mode="pairs"), tmp_path / "study")
    answer_all(tmp_path / "study", lambda item: 1)
    found = write_report(tmp_path / "study", tmp_path / "report")
    assert "20 items show 3 cases; intervals count items as independent" in found.notes
    rows = list(csv.DictReader((tmp_path / "report" / "answers.csv").open()))
    assert {len(row["case"].split(" | ")) for row in rows} == {2}


def test_a_report_only_reads_the_answers(sides, tmp_path):
    folder = tmp_path / "study"
    create_study(sides, StudyConfig(n=4, readers=2, practice=0), folder)
    answer_all(folder, lambda item: 3)
    with closing(sqlite3.connect(folder / ANSWERS)) as copied:
        copied.execute("PRAGMA journal_mode = DELETE")  # as tools that copy databases leave it
    before = files(folder)
    write_report(folder, tmp_path / "report")
    assert files(folder) == before


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="whoever runs this may write everywhere")
def test_a_study_that_cannot_be_written_is_reported(sides, tmp_path):
    folder = tmp_path / "study"
    create_study(sides, StudyConfig(n=4, readers=2, practice=0), folder)
    answer_all(folder, lambda item: 3)
    folder.chmod(0o500)
    try:
        assert write_report(folder, tmp_path / "report").answer is Verdict.OPEN
    finally:
        folder.chmod(0o700)


def test_a_report_needs_answers_the_right_key_and_a_place_of_its_own(sides, tmp_path):
    folder, other = tmp_path / "study", tmp_path / "other"
    create_study(sides, StudyConfig(n=12, readers=2), folder)
    with pytest.raises(InputError, match="holds no answers yet"):
        write_report(folder, tmp_path / "report")
    answer_all(folder, lambda item: 3)
    create_study(sides, StudyConfig(n=4, readers=1, practice=0), other)
    with pytest.raises(InputError, match="is that of another study"):
        write_report(folder, tmp_path / "report", other / KEY)
    with pytest.raises(OutputError, match="exists already"):
        write_report(folder, other)
    found = write_report(folder, tmp_path / "report")
    assert found.answer is Verdict.OPEN  # all answers the same: there is no interval
    assert "[no interval]" in sentence(found)
    assert join([], read_key(folder), ["reader-1"]).scores.shape == (1, len(read_key(folder)["items"]))
