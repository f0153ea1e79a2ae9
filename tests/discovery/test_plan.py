"""A run is priced before it starts, from counts that the run itself then meets."""

import numpy as np
import pytest
import torch
from conftest import draw_tissue
from slide_files import MPP, write_tiled_tiff
from torch.utils.flop_counter import FlopCounterMode

from histoloom.discovery.classifier import ClassifierConfig, ViT
from histoloom.discovery.cutting import Cutting
from histoloom.discovery.embed import embed
from histoloom.discovery.embedding_run import EmbedConfig
from histoloom.discovery.embeddings import open_table
from histoloom.discovery.parts import find_parts
from histoloom.discovery.plan import CLASSIFIER, COSTS, PlanConfig, count_patches, describe, make_plan, measure_rate
from histoloom.encoders.encoder import KNOWN
from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder
from histoloom.errors import ConfigError, InputError


def test_every_known_encoder_has_its_cost():
    assert set(COSTS) == {name for name, _, _ in KNOWN}


def test_hours_and_bytes_of_tcga_by_hand():
    plan = make_plan(11_765, 634_000_000, PlanConfig(("uni",), tflops=100.0))
    (price,) = plan.prices
    assert plan.chosen == 11_765_000
    assert price.hours == pytest.approx(634e6 * 123.1e9 / 100e12 / 3600)
    assert price.chosen_hours == pytest.approx(price.hours * 11_765_000 / 634e6)
    assert price.bytes == 634_000_000 * (1024 * 2 + 2)
    assert plan.small_hours == pytest.approx(634e6 * 0.6 / 1e5 / 3600)
    assert plan.map_hours == pytest.approx(634e6 * 16 * 0.375 / 1e5 / 3600)  # four windows along each edge
    assert "| uni | 812 | 2 | 216.8 | 1.3 TB | 4.0 | 24.1 GB | 15.6 |" in describe(plan)


def test_the_classifier_is_priced_as_it_is_made_by_default():
    with torch.device("meta"):
        network = ViT(ClassifierConfig(), 100).eval()
        windows = torch.zeros(1, 3, 256, 256, dtype=torch.uint8)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(windows)
    assert counter.get_total_flops() / 1e9 == pytest.approx(CLASSIFIER, rel=0.02)


def test_a_given_rate_wins_and_few_patches_are_all_chosen():
    plan = make_plan(10, 5000, PlanConfig(("mine",), rate=50.0), dimensions=8)
    assert (plan.chosen, plan.prices[0].hours) == (5000, pytest.approx(100 / 3600))
    assert plan.prices[0].bytes == 5000 * 18


def test_the_count_is_that_of_the_run(tmp_path):
    torch.manual_seed(0)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1), told=3)), tmp_path / "encoder")
    slides = tmp_path / "slides"
    slides.mkdir()
    pixels = np.full((400, 900, 3), 245, np.uint8)
    write_tiled_tiff(slides / "glass.tif", pixels)
    pixels[:, :600] = draw_tissue(np.random.default_rng(0), 600, 3)[0][:400]
    write_tiled_tiff(slides / "tissue.tif", pixels)
    cutting = Cutting(mpp=2 * MPP, size=64, min_focus=0.0)
    parts, _ = find_parts(slides, cutting)
    count, patches, failures = count_patches(parts, cutting)
    done = embed(parts, EmbedConfig(str(tmp_path / "encoder"), cutting), tmp_path / "out", slides)
    assert (count, patches) == (1, done.patches)
    assert failures == done.failures
    assert patches == open_table(tmp_path / "out").rows
    with pytest.raises(InputError, match=r"no patch in 1 slide: .*glass.tif: no patch of 64 px"):
        count_patches(parts[:1], cutting)
    rate, dimensions = measure_rate(str(tmp_path / "encoder"), 64, seconds=0.05)
    assert rate > 0
    assert dimensions == 12


def test_what_cannot_be_priced_is_one_line():
    with pytest.raises(ConfigError, match=r"encoder mine: its cost is unknown; give its --rate .*or --measure it"):
        PlanConfig(("mine",))
    with pytest.raises(ConfigError, match="a rate belongs to one encoder; give exactly one"):
        PlanConfig(("uni", "uni2"), rate=5.0)
    with pytest.raises(ConfigError, match=r"tflops 0.0 must be a finite number above 0"):
        PlanConfig(tflops=0.0)
    with pytest.raises(ConfigError, match="0 patches of 5 slides: need at least 1 of each"):
        make_plan(5, 0, PlanConfig())
