"""What a report says in words."""

from dataclasses import replace

import pytest

from histoloom.evaluation.crop_sources import UNKNOWN, UsedCrops
from histoloom.evaluation.measures import Figure
from histoloom.evaluation.page import render_page
from histoloom.evaluation.verdict import verdict
from histoloom.metrics.copying import CopyRate, wilson_interval


def searched(evaluation):
    """The search for copies, as if it had found none in 100 images."""
    rate = CopyRate(0.0, *wilson_interval(0, 100), 100, 0, 0.6)
    return replace(evaluation.copying, fake=rate, real=rate, other=rate)


def test_crops_that_could_not_be_searched_for_are_owned_up_to(good):
    used = UsedCrops([], {UNKNOWN: 5})
    note = "not given: none of 5 crops could be found"
    found = replace(good, copying=searched(good), crops=replace(good.crops, used=used, note=note))
    headline, sentences = verdict(found)
    assert headline.endswith("No sign of copying was found, but the crops could not be searched for.")
    assert f"Whether crops reappear is {note}." in sentences[3]
    assert f'<p class="why">{note}</p>' in render_page(found)


def test_without_a_floor_crops_must_reappear_far_above_chance_to_be_called_copies(good):
    used = UsedCrops([], {UNKNOWN: 5})
    ends = {8: "No sign of copying was found.", 40: "suspects before any use."}
    for hits, end in ends.items():
        rate = CopyRate(hits / 100, *wilson_interval(hits, 100), 100, 0, 0.6)
        found = replace(good, copying=searched(good), crops=replace(good.crops, woven=rate, used=used))
        assert verdict(found)[0].endswith(end)
        assert '<p class="why">No floor' in render_page(found)
    floor = CopyRate(0.02, *wilson_interval(2, 100), 100, 0, 0.6)
    for hits, end in {9: "than in real patches: look at the suspects.", 20: "suspects before any use."}.items():
        rate = CopyRate(hits / 100, *wilson_interval(hits, 100), 100, 0, 0.6)
        crops = replace(good.crops, woven=rate, real=floor, used=used)
        assert verdict(replace(good, copying=searched(good), crops=crops))[0].endswith(end)


def test_the_verdict_is_one_sentence_for_each_question(good):
    headline, sentences = verdict(good)
    assert [s.split("?")[0] for s in sentences] == [
        "True", "Varied", "Obedient to the map", "New", "Stain", "By which encoder",
    ]  # fmt: skip
    assert "cop" in headline or "reappear" in headline


def test_whole_images_near_to_the_training_images_are_said_only_beyond_chance(good):
    first = good.encoders[0]
    for ends, near in (((-40.0, 2.0), False), ((-40.0, -15.0), True)):
        auth = Figure(
            "AuthPct", 60, 60.0, 50.0, 70.0, 90.0, difference=-30.0, difference_low=ends[0], difference_high=ends[1]
        )
        overall = [auth if figure.name == "AuthPct" else figure for figure in first.overall]
        found = replace(good, copying=searched(good), encoders=[replace(first, overall=overall), *good.encoders[1:]])
        headline = verdict(found)[0]
        assert headline.startswith("Synthetic images are closer to the training images") is near
        assert "reappear" not in headline


def test_the_headline_follows_how_many_parts_reappear_above_both_floors(good):
    def rate(hits: int) -> CopyRate:
        return CopyRate(hits / 100, *wilson_interval(hits, 100), 100, 0, 0.6)

    none, look, copied = "No sign of copying was found.", "look at the suspects.", "suspects before any use."
    low, high = rate(4), rate(15)  # upper ends 9.8 and 23.3 %
    for real, other, ends in (
        (low, None, {3: none, 12: look, 60: copied}),
        (low, low, {3: none, 12: look, 60: copied}),
        (low, high, {12: none, 22: none, 30: look, 60: copied}),
        (high, low, {22: none, 30: look, 60: copied}),
    ):
        for hits, end in ends.items():
            copying = replace(good.copying, fake=rate(hits), real=real, other=other)
            assert verdict(replace(good, copying=copying))[0].endswith(end), (real.rate, other, hits)


def test_the_verdict_says_by_which_encoder_and_a_small_one_is_always_called_so(good):
    _, (true, varied, _, new, _, judge) = verdict(good)
    for sentence in (true, varied, new, judge):
        assert good.encoders[0].encoder in sentence
    note = "Compare figures of this small encoder with each other only, not with published ones."
    assert judge.endswith(note)
    assert render_page(good).count(note) == 2
    other = replace(good, encoders=[replace(good.encoders[0], encoder="uni2", small=False)])
    assert "By uni2: " in verdict(other)[1][0]
    assert note not in render_page(other)


def of_fake(evaluation, number: int, cases: int):
    """The evaluation as if it had been made on fewer synthetic images."""
    few = evaluation.sets.fake.select(range(number))
    few = replace(few, cases=[f"fake {i % cases}" for i in range(number)])
    return replace(evaluation, sets=replace(evaluation.sets, fake=few))


def changed(evaluation, **figures):
    """The evaluation with figures of the first encoder changed, by name."""
    first = evaluation.encoders[0]
    overall = [replace(f, **figures.get(f.name.split(" ")[0].strip(","), {})) for f in first.overall]
    return replace(evaluation, encoders=[replace(first, overall=overall)])


AS_REAL = {
    "C2ST": {"value": 0.5, "floor": 0.5, "note": ""},
    "precision": {"value": 0.8, "floor": 0.8},
    "recall": {"value": 0.8, "floor": 0.8},
    "coverage": {"value": 0.8, "floor": 0.8},
    "Fréchet": {"value": 2.0, "floor": 2.0},
}
PRAISE = "By these measures the synthetic images are about as true and as varied as real ones."


@pytest.mark.parametrize(("number", "cases"), [(2, 2), (6, 6), (49, 10), (60, 1), (60, 4)])
def test_there_is_no_verdict_on_few_images_or_cases(good, number, cases):
    as_real = replace(changed(good, **AS_REAL), copying=searched(good))
    assert verdict(as_real)[0].startswith(PRAISE)
    headline, _ = verdict(of_fake(as_real, number, cases))
    assert headline.startswith("No verdict: a verdict needs 50 images of 5 cases in each set, and there are")
    assert f"{number} synthetic images of {cases} case{'s' if cases > 1 else ''}" in headline


def test_a_test_that_could_not_be_made_is_said_and_never_passed(good):
    as_real = replace(changed(good, **AS_REAL), copying=searched(good))
    for wrong in ({"value": None, "note": "not given: few cases"}, {"floor": None, "note": "no floor: few cases"}):
        headline, (true, *_) = verdict(changed(as_real, C2ST=wrong))
        assert headline.startswith("No verdict: whether a classifier can tell synthetic from real could not be tested.")
        assert "could not be tested (no" in true
    nothing = {"value": None, "floor": None}
    headline, (true, *_) = verdict(changed(as_real, Fréchet=nothing, MMD={"difference_low": None}))
    assert headline.startswith("No verdict: how far apart synthetic and real are is unknown.")


def test_an_unbiased_distance_is_compared_by_its_difference_from_the_floor(good):
    nothing = {"value": None, "floor": None}
    as_real = changed(replace(changed(good, **AS_REAL), copying=searched(good)), Fréchet=nothing)
    for low, high, praised in ((-1.0, 3.0, True), (0.5, 3.0, False)):
        mmd = {"value": 1.0, "floor": -0.2, "difference": 1.2, "difference_low": low, "difference_high": high}
        headline, (true, *_) = verdict(changed(as_real, MMD=mmd))
        assert headline.startswith(PRAISE) == praised
        assert f"(MMD x 1000) is +1.2 [{low:.1f}, {high:.1f}] compared with that of two sets of real patients" in true
        assert "times as far" not in true
