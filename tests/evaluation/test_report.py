"""The figures of a report, its page and its JSON."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from histoloom.errors import ConfigError, ImageError, InputError
from histoloom.evaluation.comparison import Comparison
from histoloom.evaluation.crop_sources import UNKNOWN
from histoloom.evaluation.hidden_types import hide_types
from histoloom.evaluation.map_figures import map_figures
from histoloom.evaluation.page import READ_AS, render_page
from histoloom.evaluation.report import EvaluationConfig, evaluate, to_json, write_report
from histoloom.evaluation.segmenter import Segmenter, SegmenterConfig, train_segmenter
from histoloom.evaluation.sources import MADE
from histoloom.evaluation.verdict import verdict
from histoloom.tissue import TissueTable
from histoloom.version import VERSION

TABLE = TissueTable.from_names(["stroma", "gland", "tumour"])


def test_every_figure_stands_beside_its_floor_and_its_number(good):
    figures = {f.name: f for f in good.encoders[0].overall}
    assert list(figures) == [
        "Fréchet distance", "Fréchet, n to infinity", "MIND", "KID x 1000", "MMD (RBF) x 1000", "precision", "recall",
        "density", "coverage", "C2ST accuracy", "AuthPct",
        "nearest training image",
    ]  # fmt: skip
    for figure in [*figures.values(), *good.stain, *good.maps]:
        assert figure.floor is not None, figure.name
        assert figure.n == 60
    assert figures["precision"].low <= figures["precision"].value <= figures["precision"].high


def test_the_ratio_to_the_floor_is_a_mean_over_the_encoders_that_give_it(good, copied):
    frechet, *figures = good.encoders[0].overall
    assert good.frechet_ratio == {"mean": pytest.approx(frechet.value / frechet.floor), "encoders": 1}
    other = replace(good.encoders[0], overall=[replace(frechet, value=3 * frechet.floor), *figures])
    silent = replace(good.encoders[0], overall=[replace(frechet, value=None), *figures])
    assert replace(good, encoders=[other, silent, other]).frechet_ratio == {"mean": pytest.approx(3), "encoders": 2}
    assert to_json(good)["frechet_ratio"]["encoders"] == 1
    assert "FDr, the Fréchet distance over its floor, is" in render_page(good)
    assert "FDr, the Fréchet" not in render_page(replace(good, encoders=[silent]))


def test_images_as_good_as_real_ones_score_as_real_ones_do(good):
    figures = {f.name: f for f in good.encoders[0].overall}
    assert figures["precision"].value == pytest.approx(figures["precision"].floor, abs=0.3)
    assert not good.shared
    assert good.copying.fake.rate <= 0.25
    assert {f.name for f in good.maps} >= {"mean IoU", "mean Dice", "IoU, stroma", "Dice, stroma"}


def test_types_have_rows_of_their_own_and_small_ones_say_so(good):
    assert set(good.encoders[0].of_type) == set(TABLE.names)
    for figures in good.encoders[0].of_type.values():
        assert len(figures) > 1 or "too few patches of this type" in figures[0].note


def test_copies_are_called_copies(copied):
    figures = {f.name: f for f in copied.encoders[0].overall}
    assert figures["AuthPct"].value < 10
    nearest = figures["nearest training image"]
    assert nearest.value < nearest.high < nearest.floor / 2
    assert copied.copying.fake.rate == 1
    assert copied.shared == ["train 03.png"]
    headline, _ = verdict(copied)
    assert headline == "1 synthetic image is a real one, pixel by pixel. Do not use this set."
    assert verdict(replace(copied, shared=[]))[0].startswith("Parts of training images reappear")
    assert "Map fidelity not given: fake has no maps." in copied.notes


def test_crops_that_reappear_are_a_figure_of_their_own_with_floor_and_suspects(pasted):
    found = to_json(pasted)["crops"]
    assert found["woven"]["rate"] == 1
    assert (found["woven"]["n"], found["searched"], found["named"], found["found"]) == (12, 12, 60, 59)
    assert max(found["real"]["rate"], found["other"]["rate"]) < 0.5
    assert found["missing"] == {UNKNOWN: 1}
    headline, sentences = verdict(pasted)
    assert headline == "Crops reappear in what was generated from them. Look at the suspects before any use."
    assert "Of 12 crops 100.0 % reappear in part in what was generated from them" in sentences[3]
    assert "1 of 60 could not be found" in sentences[3]
    page = render_page(pasted)
    assert f"Of 60 crops that the synthetic images name, 59 were found; 1 were not: {UNKNOWN}." in page
    assert "Wilson over crops" in page
    section = page[page.index("<h2>Crops that reappear") : page.index("<h2>Best and worst")]
    assert section.count("data:image/png;base64,") == 6 * 2
    assert section.count(", crop of train ") == 6


def test_images_that_name_no_crops_have_no_section_on_them(good):
    assert to_json(good)["crops"]["note"] == "not given: the synthetic images name no crops"
    assert "Crops that reappear" not in render_page(good)
    assert "crops" not in verdict(good)[1][3]


def test_both_floors_of_copied_parts_stand_in_the_json_on_the_page_and_in_the_verdict(good):
    assert to_json(good)["copying"]["other"]["n"] == good.copying.other.n == 4
    page = render_page(good)
    for row in ("of the nearest one, in unseen real images (floor)", "of a random one of another case, in synthetic"):
        assert row in page
    assert "; of a random training image: " in verdict(good)[1][3]
    without = replace(good, copying=replace(good.copying, other=None))
    assert to_json(without)["copying"]["other"] is None
    assert '<p class="why">No floor of random training images' in render_page(without)
    assert "of a random training image" not in verdict(without)[1][3]


def test_too_few_images_for_an_encoder_give_a_reason_instead_of_a_number(image_sets, report_config):
    few = replace(report_config, most=6)
    sides = image_sets("real", 0, 12), image_sets("fake", 2, 12), image_sets("train", 1, 12)
    found = evaluate(*sides, few)
    assert "Map fidelity not given: no segmenter was named (--segmenter)." in found.notes
    distance = found.encoders[0].overall[0]
    assert distance.value is None
    assert "needs more than 6 images per side for 6 dimensions, got 6" in distance.note
    assert distance.note in render_page(found)


def test_a_side_with_too_few_images_for_five_neighbors_is_named(image_sets, report_config, good):
    found = evaluate(image_sets("real", 0, 30), image_sets("fake", 2, 4), None, replace(report_config, pairs=2))
    expected = "look at 3 nearest neighbors instead of 5, since a side has only 4 images."
    assert [note for note in found.notes if note.endswith(expected)]
    assert not [note for note in good.notes if "neighbors" in note]


def test_the_page_stands_alone_and_the_json_holds_every_figure(good, tmp_path):
    write_report(good, render_page(good), verdict(good), tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "http" not in page
    assert "<script" not in page
    assert page.index(verdict(good)[0]) < page.index("<table>")
    assert page.count("data:image/png;base64,") >= 3 + 6 * 2 * 2 + 12
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    (encoder,) = written["encoders"].values()
    assert encoder["overall"][0]["value"] == good.encoders[0].overall[0].value
    assert written["sets"]["fake"]["images"] == 60
    headline, sentences = verdict(good)
    assert written == to_json(good) | {"verdict": {"headline": headline, "sentences": sentences}}


def test_real_and_repeated_images_stand_in_a_warning_on_the_page(copied, good):
    warning = '<p class="warn">1 synthetic image is a real one, pixel by pixel: train 03.png.</p>'
    assert warning in render_page(copied)
    assert "pixel by pixel" not in render_page(good)
    repeated = render_page(replace(good, duplicates={"real": 0, "synthetic": 2}))
    assert '<p class="warn">2 synthetic images repeat another one, and count once.</p>' in repeated
    assert "real images repeat" not in repeated


def test_the_page_says_how_everything_was_made_and_how_each_figure_is_read(good, copied):
    made = dict.fromkeys(MADE, "1") | {"model_hash": "ab" * 32, "scheduler": "unipc", "map_guidance": "1.5, 2.0"}
    made["guidance_interval"] = "[0.4, 0.9]"
    page = render_page(replace(good, sets=replace(good.sets, fake=replace(good.sets.fake, made=made))))
    assert "model abababababab (1), sampler unipc in 1 steps, guidance by map 1.5, 2.0 and by crops 1" in page
    assert "at shares of noise [0.4, 0.9]." in page
    assert f"Measured by Histoloom {VERSION}." in page
    assert f"Segmenter (fingerprint): {good.segmenter[:12]}." in page
    assert to_json(good)["segmenter"] == good.segmenter
    for unknown in ("Segmenter (fingerprint)", "were generated by"):
        assert unknown not in render_page(copied)
    assert {f.name for f in good.encoders[0].overall} | {"mean IoU", "mean Dice"} <= set(READ_AS)
    assert all(text in page for text in READ_AS.values())


def test_the_one_interval_that_is_over_images_is_called_so(good):
    assert "95 %, Wilson over images and the threshold" in render_page(good)


def test_a_name_from_a_folder_cannot_become_markup(good):
    sets = replace(good.sets, fake=replace(good.sets.fake, where="<img src=x>"))
    assert "<img src=x>" not in render_page(replace(good, sets=sets))


def test_the_same_input_gives_the_same_page(image_sets, report_config):
    few = replace(report_config, most=12, pairs=2)
    sides = image_sets("real", 0, 12), image_sets("fake", 2, 12), image_sets("train", 1, 12)
    assert render_page(evaluate(*sides, few)) == render_page(evaluate(*sides, few))


def test_bad_input_is_refused_before_anything_is_computed(image_sets, report_config):
    real = image_sets("real", 0, 12)
    with pytest.raises(InputError, match="this is the real folder"):
        evaluate(real, replace(real, where="fake"), None, report_config)
    with pytest.raises(ImageError, match="images are 32 x 32 px where those of real are 64 x 64"):
        evaluate(real, replace(real, images=real.images[:, :32, :32], semantic_maps=None), None, report_config)
    fake = replace(image_sets("fake", 2, 12), table=TissueTable.from_names(["gland", "stroma", "tumour"]))
    with pytest.raises(InputError, match=r"fake/tissue\.toml: id 0 is 'gland' and in real/tissue\.toml 'stroma'"):
        evaluate(real, fake, None, report_config)
    two_types = Segmenter(torch.nn.Identity(), 2, SegmenterConfig(), frozenset())
    with pytest.raises(InputError, match=r"real/tissue\.toml: has ids up to 2, but the segmenter knows 2 types"):
        evaluate(real, image_sets("fake", 2, 12), None, report_config, two_types)
    other_order = TissueTable.from_names(["stroma", "tumour", "gland"])
    reads_others = Segmenter(torch.nn.Identity(), 3, SegmenterConfig(), frozenset(), table=other_order)
    with pytest.raises(InputError, match=r"real/tissue\.toml: id 1 is 'gland', and to the segmenter 'tumour'; name"):
        evaluate(real, image_sets("fake", 2, 12), None, report_config, reads_others)
    with pytest.raises(ConfigError, match="name at least one encoder"):
        EvaluationConfig(encoders=())


def test_distances_have_a_difference_from_their_floor_with_an_interval(good):
    for figure in good.encoders[0].overall[:4]:
        assert figure.difference == pytest.approx(figure.value - figure.floor)
        assert figure.difference_low < figure.difference < figure.difference_high
        assert figure.low < figure.value < figure.high


def test_means_of_maps_are_over_the_types_of_both_sides_and_the_floor_says_what_the_segmenter_saw(image_sets):
    real, train = image_sets("real", 0), image_sets("train", 1)
    segmenter = train_segmenter(
        train.images, train.semantic_maps, 3, SegmenterConfig(channels=(8, 8), size=32, steps=2, batch_size=2)
    )
    maps = real.semantic_maps.copy()
    maps[maps == 2] = 255
    fake = image_sets("fake", 2)
    sets = Comparison(replace(real, semantic_maps=maps), real, fake, train, ())
    (mean, *rows), notes = map_figures(sets, segmenter)
    of_name = {figure.name: figure for figure in rows}
    assert mean.value == pytest.approx(np.mean([of_name[f"IoU, {name}"].value for name in ("stroma", "gland")]))
    assert mean.floor == pytest.approx(np.mean([of_name[f"IoU, {name}"].floor for name in ("stroma", "gland")]))
    assert of_name["IoU, tumour"].floor is None
    assert notes[0] == "Mean IoU and Dice are over the 2 types of both sides. Only the synthetic maps show tumour."
    assert notes[1] == "The segmenter learned from none of the real images that the floor is measured on (60)."
    assert notes[2].startswith("What the segmenter calls its types is not recorded")
    segmenter.table = real.table
    assert map_figures(sets, segmenter)[1] == notes[:2]
    _, notes = map_figures(replace(sets, reference=train), segmenter)
    assert notes[0].startswith("The segmenter learned from 60 of the 60 real images that the floor is measured on")


def test_types_that_maps_leave_out_are_left_out_of_what_a_segmenter_reads(image_sets, report_config):
    """A segmenter that reads every map to the pixel is right about maps that leave a type out, too."""
    real, fake = image_sets("real", 0), image_sets("fake", 2)

    class Oracle(Segmenter):
        def predict(self, images):
            known = {image.tobytes(): m for s in (real, fake) for image, m in zip(s.images, s.maps, strict=True)}
            return np.stack([known[image.tobytes()] for image in images])

    oracle = Oracle(torch.nn.Identity(), 3, SegmenterConfig(), frozenset())
    bare, other = hide_types(["tumour"], [real, fake])
    figures, _ = map_figures(Comparison(bare, bare, other, bare, ()), oracle)
    assert {(figure.value, figure.floor) for figure in figures} == {(1.0, 1.0)}
    found = evaluate(real, fake, None, replace(report_config, hidden=("tumour",), most=12, pairs=2))
    assert to_json(found)["config"]["hidden"] == ["tumour"]
    assert "All maps leave out tumour: the nearest other type is in its place." in found.notes


def test_neither_page_nor_json_hold_a_path(good):
    sets = replace(good.sets, fake=replace(good.sets.fake, where="/home/someone/secret/woven"))
    found = replace(good, sets=sets)
    for text in (json.dumps(to_json(found)), render_page(found)):
        assert "someone" not in text
        assert "woven" in text
