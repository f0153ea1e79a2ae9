import numpy as np
import pytest
from skimage.color import lab2rgb

from histoloom.discovery.colors import nested_colors, oklch_to_srgb


def rgb(colors: list[str]) -> np.ndarray:
    return np.array([list(bytes.fromhex(color[1:])) for color in colors], float)


def random_tree(rng: np.random.Generator, counts: tuple[int, ...]) -> np.ndarray:
    rows = [np.arange(counts[-1])]
    for fine, coarse in zip(counts[:0:-1], counts[-2::-1], strict=True):
        parent = np.concatenate([np.arange(coarse), rng.integers(coarse, size=fine - coarse)])
        rows.insert(0, parent[rows[0]])
    return np.stack(rows)


@pytest.mark.parametrize("counts", [(1,), (3,), (5, 10, 20, 50, 100), (5, 60, 254)])
def test_no_two_types_of_a_level_share_a_colour(counts):
    for colors in nested_colors(random_tree(np.random.default_rng(0), counts)):
        assert len(set(colors)) == len(colors)
        assert "#ffffff" not in colors


def test_few_types_are_far_apart():
    for colors in nested_colors(random_tree(np.random.default_rng(1), (5, 10, 20)))[:2]:
        apart = np.linalg.norm(rgb(colors)[:, None] - rgb(colors)[None], axis=-1)
        assert apart[~np.eye(len(colors), dtype=bool)].min() > 25


def test_the_colours_are_those_of_the_published_space():
    # White, mid gray, and sRGB red, green, blue in OKLCh (Ottosson 2020, bottosson.github.io/posts/oklab).
    known = np.array([[1, 0, 0], [0.5999, 0, 0], [0.62796, 0.25768, 29.234], [0.86644, 0.29483, 142.495],
                      [0.45201, 0.31321, 264.052]])  # fmt: skip
    found = oklch_to_srgb(known)
    gray = round(255 * float(lab2rgb([[[53.585, 0, 0]]])[0, 0, 0]))
    assert abs(found[1] - gray).max() <= 2
    np.testing.assert_allclose(found[[0, 2, 3, 4]], [[255] * 3, [255, 0, 0], [0, 255, 0], [0, 0, 255]], atol=1)
