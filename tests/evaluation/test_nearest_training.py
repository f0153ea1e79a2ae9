"""The nearest training patch is found, in the whole and in a part, and a file answers as the patches themselves do."""

import numpy as np
import pytest

from histoloom.errors import InputError, ModelError
from histoloom.evaluation.nearest_training import TRAINING, TrainingPatches


@pytest.fixture(scope="module")
def training(small_patches):
    return TrainingPatches.of_images(small_patches.images, small_patches.cases)


def test_a_training_patch_is_at_no_distance_and_other_tissue_is_not(training, small_patches):
    assert training.distance(small_patches.images[3]) < 0.05 * training.usual
    noise = np.random.default_rng(0).integers(0, 256, small_patches.images.shape[1:], dtype=np.uint8)
    assert training.distance(noise) > training.usual


def test_a_copy_is_found_in_a_part_of_a_larger_image(training, small_patches):
    edge = training.edge
    large = np.full((2 * edge, 3 * edge, 3), 240, np.uint8)
    large[edge:, edge : 2 * edge] = small_patches.images[1][:edge, :edge]
    assert training.distance(large) < 0.2 * training.usual
    assert training.distance(small_patches.images[2][:40, :50]) > 0


def test_a_file_answers_as_the_patches_do_and_holds_no_pixels(training, small_patches, tmp_path):
    path = training.save(tmp_path)
    again, image = TrainingPatches.load(tmp_path), small_patches.images[0][::-1]
    assert again.distance(image) == training.distance(image)
    assert (again.usual, again.edge) == (training.usual, training.edge)
    assert path.stat().st_size < 1000 + 2 * training.features.size


def test_what_cannot_answer_is_refused(small_patches, tmp_path):
    with pytest.raises(InputError, match="of one case"):
        TrainingPatches.of_images(small_patches.images[:2], ["a", "a"])
    (tmp_path / TRAINING).write_bytes(b"none")
    with pytest.raises(ModelError, match="name the training patches by --training"):
        TrainingPatches.load(tmp_path)
