"""Simulated studies have the AUC that they were asked for."""

import numpy as np
import pytest

from histoloom.errors import ConfigError
from histoloom.readers import RoeMetz, one_shot, power, simulate, successes


@pytest.mark.parametrize(("auc", "levels"), [(0.5, 6), (0.8, 0)])
def test_the_mean_auc_of_many_studies_is_that_of_the_model(auc, levels):
    rng, model = np.random.default_rng(0), RoeMetz(auc=auc, levels=levels)
    found = [one_shot(successes(*simulate(model, 3, 20, rng))).value for _ in range(300)]
    assert np.mean(found) == pytest.approx(auc, abs=4 * np.std(found) / 300**0.5)


def test_readers_who_see_the_same_things_agree():
    rng = np.random.default_rng(0)
    scores, _ = simulate(RoeMetz(reader=0.0, case=1.0, levels=0), 2, 50, rng)
    assert np.allclose(scores[0], scores[1])
    scores, _ = simulate(RoeMetz(reader=0.0, case=0.5, levels=0), 2, 2000, rng)
    assert np.corrcoef(scores)[0, 1] == pytest.approx(0.5, abs=0.05)


def test_more_cases_decide_more_often_and_the_seed_decides_the_figure():
    few, many = (power(RoeMetz(reader=0.0), 4, n, 0.65, studies=60) for n in (15, 60))
    assert few < many
    assert power(RoeMetz(reader=0.0), 4, 15, 0.65, studies=60) == few


def test_readers_who_can_tell_are_not_found_unable():
    assert power(RoeMetz(auc=0.65), 4, 40, 0.6, studies=60) <= 0.05


def test_impossible_models_are_refused():
    for options in ({"auc": 1.0}, {"case": 2.0}, {"reader": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            RoeMetz(**options)
