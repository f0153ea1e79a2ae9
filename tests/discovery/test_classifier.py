from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from bars import Counter

from histoloom.discovery.classifier import (
    WEIGHTS,
    ClassifierConfig,
    NearestType,
    check_encoder,
    load_classifier,
    save_classifier,
)
from histoloom.discovery.distill import Distillation, distill
from histoloom.discovery.distill_report import draw_tested, examine, write_answers, write_card
from histoloom.discovery.embedding_run import read_embedding
from histoloom.discovery.open_classifier import classifier_fingerprint, open_classifier
from histoloom.discovery.tree import TypeTree
from histoloom.discovery.windows import open_windows, read_assigned
from histoloom.encoders.encoder import open_encoder
from histoloom.encoders.small import SmallEncoder, SmallEncoderConfig, save_small_encoder
from histoloom.errors import ConfigError, InputError, ModelError
from histoloom.fitting.loop import LoopConfig

TINY = Distillation(
    val_share=0.3,
    model=ClassifierConfig(input=32, patch=8, depth=1),
    loop=LoopConfig(steps=40, batch_size=16, learning_rate=1e-3, warmup_steps=5, average_decay=0.9, workers=0,
                    precision="fp32", checkpoint_minutes=1e9),
)  # fmt: skip


def open_own(discovered):
    """The encoder of the types."""
    return open_encoder(read_embedding(discovered)[1].encoder)


@pytest.fixture(scope="module")
def lesson(discovered):
    read, window = open_windows(discovered)
    return read_assigned(discovered), TypeTree.load(discovered), read, window


@pytest.fixture(scope="module")
def classifier(lesson, tmp_path_factory):
    return distill(*lesson, TINY, tmp_path_factory.mktemp("run"))


def test_it_learns_the_types_and_is_tested_on_cases_it_has_not_seen(discovered, lesson, classifier, tmp_path):
    assigned, _, read, window = lesson
    assert (window.edge, window.mpp) == (32, 0.5)
    held = assigned.held_out(TINY.val_share, 0)
    cases = np.array(assigned.cases)
    assert not set(cases[held]) & set(cases[~held])
    bar = Counter()
    found, answers = examine(classifier, open_own(discovered), assigned, read, TINY, bar)
    assert found.windows == held.sum() == bar.total
    write_answers(answers, tmp_path)
    told = pq.read_table(tmp_path / "answers.parquet").to_pylist()
    assert [row["type"] for row in told] == assigned.types[held].tolist()
    assert [(row["slide"], row["x"], row["y"], row["size"]) for row in told[:5]] == [
        (assigned.slides[i], *assigned.places[i].tolist()) for i in np.flatnonzero(held)[:5]
    ]
    assert np.mean([row["answer"] == row["type"] for row in told]) == found.levels[-1].top1
    assert all(1 / 3 <= row["confidence"] <= 1 for row in told)
    assert [level.types for level in found.levels] == [2, 3]
    assert found.levels[-1].top1 > 0.8 > found.levels[-1].commonest
    assert found.levels[0].top1 >= found.levels[-1].top1 - 0.02
    write_card(found, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert f"{found.windows} windows of {found.cases} unseen cases" in card
    assert found.cost_line() in card
    as_fast = replace(found, classifier=found.encoder)
    assert "nothing is saved" in as_fast.cost_line()
    slow = replace(found, encoder=replace(found.classifier, windows_per_core_second=1e-3))
    assert "nothing is saved" not in slow.cost_line()


def test_of_many_unseen_windows_some_are_drawn_and_the_card_says_so(discovered, lesson, classifier, tmp_path):
    assigned, _, read, _ = lesson
    few = replace(TINY, most_tested=20)
    tested, held = draw_tested(assigned, few), np.flatnonzero(assigned.held_out(TINY.val_share, 0))
    assert len(tested) == 20 < len(held)
    assert set(tested) < set(held)
    np.testing.assert_array_equal(tested, draw_tested(assigned, few))
    assert set(tested) != set(draw_tested(assigned, replace(few, loop=replace(few.loop, seed=1))))
    found, answers = examine(classifier, open_own(discovered), assigned, read, few)
    assert found.windows == len(answers) == 20
    write_card(found, tmp_path)
    assert f"unseen cases, drawn from {len(held)}, trained on" in (tmp_path / "README.md").read_text()


def test_the_same_seed_gives_the_same_weights_and_a_stopped_run_goes_on(lesson, tmp_path):
    class Stopped(Exception):
        pass

    def stop(progress):
        if progress.step == 3:
            raise Stopped

    short = replace(TINY, loop=replace(TINY.loop, steps=4, checkpoint_minutes=1e-9))
    whole = distill(*lesson, short, tmp_path / "whole").network.state_dict()
    with pytest.raises(Stopped):
        distill(*lesson, short, tmp_path / "stopped", stop)
    for key, value in distill(*lesson, short, tmp_path / "stopped").network.state_dict().items():
        assert torch.equal(value, whole[key]), key


def test_it_is_read_back_as_saved_and_names_alike(classifier, lesson, tmp_path):
    save_classifier(classifier, tmp_path)
    again = load_classifier(tmp_path)
    windows = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    np.testing.assert_array_equal(again(windows), classifier(windows))
    np.testing.assert_allclose(again(windows).sum(1), 1, atol=1e-5)
    assert again.window == classifier.window
    save_classifier(again, tmp_path / "again")
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / WEIGHTS).read_bytes()
    assert open_classifier(tmp_path)(windows).shape == (5, 3)


def test_the_encoder_itself_names_as_the_windows_were_assigned(discovered, lesson):
    assigned, _, read, _ = lesson
    namer = open_classifier(discovered)
    assert isinstance(namer, NearestType)
    windows = np.stack([read(assigned.slides[i], *assigned.places[i].tolist()) for i in range(0, len(assigned), 9)])
    np.testing.assert_array_equal(namer(windows).argmax(1), assigned.types[::9])


def test_windows_keep_their_places_types_and_cases_and_share_their_names(discovered, lesson):
    assigned = lesson[0]
    rows = pq.read_table(discovered / "assignments.parquet").to_pylist()
    chosen = {row["slide"]: row["case_id"] for row in pq.read_table(discovered / "chosen.parquet").to_pylist()}
    assert assigned.slides == [row["slide"] for row in rows]
    assert assigned.cases == [chosen[row["slide"]] for row in rows]
    assert assigned.places.tolist() == [[row["x"], row["y"], row["size"]] for row in rows]
    assert len({id(name) for name in assigned.slides}) == len(set(assigned.slides))


def test_types_of_another_encoder_are_refused(classifier, discovered, tmp_path):
    torch.manual_seed(1)
    save_small_encoder(SmallEncoder(SmallEncoderConfig(levels=(0, 1))), tmp_path / "other")
    with pytest.raises(ModelError, match=r"types come from encoder encoder .* not from other .*use that encoder"):
        check_encoder(TypeTree.load(discovered), open_encoder(str(tmp_path / "other")))
    save_classifier(classifier, tmp_path / "mixed")
    replace(classifier.tree, fingerprint="0" * 64).save(tmp_path / "mixed")
    with pytest.raises(ModelError, match="come from another encoder than those of its classifier; train it again"):
        load_classifier(tmp_path / "mixed")


def test_what_is_no_classifier_is_one_line(classifier, tmp_path):
    with pytest.raises(ModelError, match="not found; train a classifier with `histoloom discover classify`"):
        load_classifier(tmp_path)
    with pytest.raises(InputError, match="neither a classifier nor tissue types"):
        classifier_fingerprint(tmp_path)
    save_classifier(classifier, tmp_path)
    (tmp_path / "classifier.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match="is not a classifier of these types"):
        load_classifier(tmp_path)


def test_settings_without_sense_are_refused(lesson, tmp_path):
    for wrong in ({"input": 30}, {"depth": 0}, {"depth": 10**6}):
        with pytest.raises(ConfigError, match="multiple of patch"):
            ClassifierConfig(**wrong)
    with pytest.raises(ConfigError, match="is not a vision transformer that timm can build"):
        distill(*lesson, replace(TINY, model=ClassifierConfig("resnet18", 32, 8, 1)), tmp_path)
    one = replace(lesson[0], cases=["a"] * len(lesson[0]))
    with pytest.raises(InputError, match="all patches are of one case"):
        distill(one, *lesson[1:], TINY, tmp_path)
