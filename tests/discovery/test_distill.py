import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from histoloom.discovery.distill import calibration, report_level


def test_levels_are_reported_by_summed_probabilities():
    rng = np.random.default_rng(0)
    ancestors, types = np.arange(12) // 2, rng.integers(12, size=300)
    probabilities = rng.dirichlet(np.ones(12), 300)
    probabilities[np.arange(300), types] += 0.15
    probabilities /= probabilities.sum(1, keepdims=True)
    found = report_level(probabilities, types, types, ancestors)
    summed = probabilities.reshape(300, 6, 2).sum(-1)
    assert found.types == 6
    for k, value in ((1, found.top1), (5, found.top5)):
        assert value == pytest.approx(top_k_accuracy_score(types // 2, summed, k=k, labels=range(6)))
    assert found.commonest == pytest.approx(np.bincount(types // 2).max() / 300)
    assert sum(n for *_, n in found.reliability) == 300


def test_calibration_error_is_that_of_its_definition():
    rng = np.random.default_rng(1)
    confidence, right = rng.random(500), rng.random(500) < 0.6
    expected = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence >= low) & (confidence < low + 1 / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert calibration(confidence, right)[0] == pytest.approx(expected)


def test_one_that_is_as_often_right_as_it_is_sure_is_calibrated():
    confidence = np.repeat([0.5, 0.9], 1000)
    right = np.concatenate([np.arange(1000) % 2 == 0, np.arange(1000) % 10 != 0])
    assert calibration(confidence, right)[0] == pytest.approx(0, abs=1e-9)
