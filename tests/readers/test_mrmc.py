"""Readers and cases random: what FDA's iMRMC finds, and a direct count of pairs."""

import csv
import itertools
import json

import numpy as np
import pytest

from histoloom.errors import InputError
from histoloom.readers import obuchowski_rockette, one_shot, reader_estimates, successes
from histoloom.readers.u_statistics import variance_parts

TESTS = ("testA", "testB", "difference")


@pytest.fixture(scope="module")
def success(shared_data):
    with open(shared_data / "mrmc" / "scores.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    positive = {row["case"]: row["score"] == "1" for row in rows if row["reader"] == "truth"}
    readers = sorted({row["reader"] for row in rows} - {"truth"})
    scores = {(row["modality"], row["reader"], row["case"]): float(row["score"]) for row in rows}
    first, second = (
        successes(np.array([[scores[test, reader, case] for case in positive] for reader in readers]), truth)
        for test in TESTS[:2]
        for truth in [np.array(list(positive.values()))]
    )
    return {"testA": first, "testB": second, "difference": first - second}


@pytest.fixture(scope="module")
def expected(shared_data):
    return json.loads((shared_data / "mrmc" / "expected.json").read_text())


@pytest.mark.parametrize("kind", ["Ustat", "MLEstat"])
@pytest.mark.parametrize("row", range(3), ids=TESTS)
def test_variance_interval_and_p_of_the_one_shot_estimate_are_those_of_imrmc(success, expected, kind, row):
    theirs, ours = expected[kind][row], one_shot(success[TESTS[row]], biased=kind == "MLEstat")
    name = "AUCAminusAUCB" if TESTS[row] == "difference" else "AUCA"
    variance = theirs[f"var{name}"] if TESTS[row] == "difference" else theirs["varAUCA"]
    assert ours.value == pytest.approx(theirs[name], abs=1e-5)
    assert ours.variance == pytest.approx(variance, abs=1e-8)
    assert ours.freedom == pytest.approx(theirs["dfBDG"], abs=1e-5)
    assert ours.interval() == pytest.approx((theirs["botCIBDG"], theirs["topCIBDG"]), abs=1e-5)
    assert ours.p_value(0.0 if TESTS[row] == "difference" else 0.5) == pytest.approx(theirs["pValueBDG"], abs=1e-5)


@pytest.mark.parametrize("row", range(3), ids=TESTS)
def test_obuchowski_rockette_has_the_degrees_of_freedom_of_hillis(success, expected, row):
    theirs, ours = expected["Ustat"][row], obuchowski_rockette(success[TESTS[row]]).estimate
    assert ours.freedom == pytest.approx(theirs["dfHillis"], abs=1e-5)
    assert ours.interval() == pytest.approx((theirs["botCIHillis"], theirs["topCIHillis"]), abs=1e-5)


@pytest.mark.parametrize("test", TESTS[:2])
def test_parts_of_the_variance_are_those_of_imrmc(success, expected, test):
    theirs = expected["varDecomp"]["OR"]["Ustat"]["comp"][f"{test}.NO_MOD"][0]
    ours = obuchowski_rockette(success[test])
    assert (ours.reader, ours.covariance, ours.error) == pytest.approx(
        (theirs["R"], theirs["COV2"], theirs["ERROR"]), abs=1e-6
    )


def test_variance_of_each_reader_is_that_of_imrmc(success, expected):
    rows = expected["perReader"]
    found = [estimate for test in TESTS for estimate in reader_estimates(success[test])]
    for theirs, ours in zip(rows, found, strict=True):
        name = "AUCA" if theirs["AUCAminusAUCB"] is None else "AUCAminusAUCB"
        assert ours.value == pytest.approx(theirs[name], abs=1e-5)
        assert ours.variance == pytest.approx(theirs[f"var{name}"], abs=1e-7)


def test_the_parts_agree_with_a_count_of_all_pairs_where_scores_are_missing():
    rng = np.random.default_rng(0)
    success = rng.choice([0, 0.5, 1], (3, 4, 3))
    success[rng.random(success.shape) < 0.2] = np.nan
    entries = [(index, success[index]) for index in np.ndindex(success.shape) if not np.isnan(success[index])]
    products: dict[tuple[bool, ...], list[float]] = {}
    for (first, value), (second, other) in itertools.product(entries, entries):
        shared = tuple(a == b for a, b in zip(first, second, strict=True))
        products.setdefault(shared, []).append(value * other)
    apart = np.mean(products[False, False, False])
    variance = sum(len(of) * (np.mean(of) - apart) for of in products.values()) / len(entries) ** 2
    assert sum(variance_parts(success)[1].values()) == pytest.approx(variance)


def test_readers_who_say_the_same_of_every_case_have_no_interval():
    estimate = one_shot(successes(np.full((3, 8), 2.0), np.arange(8) > 3))
    assert estimate.value == 0.5
    assert np.isnan(estimate.interval()).all()
    assert np.isnan(estimate.p_value(0.5))


def test_readers_of_one_mind_have_the_interval_of_their_cases():
    scores = np.repeat(np.random.default_rng(0).standard_normal((1, 40)), 3, axis=0)
    success = successes(scores, np.arange(40) > 19)
    together, alone = obuchowski_rockette(success).estimate, reader_estimates(success)[0]
    assert together.freedom == np.inf
    assert together.variance == pytest.approx(alone.variance)
    assert together.interval()[1] == pytest.approx(alone.value + 1.96 * alone.error, abs=1e-3)


def test_a_study_without_pairs_is_refused():
    with pytest.raises(InputError, match="need cases of both kinds; got 0 positive of 4"):
        successes(np.ones((2, 4)), np.zeros(4, bool))
    with pytest.raises(InputError, match="got 1 readers and 2 and 2 cases"):
        one_shot(np.ones((1, 2, 2)))
    with pytest.raises(InputError, match="every reader for every case"):
        obuchowski_rockette(np.full((2, 2, 2), np.nan))
