"""Training the small encoder as a run."""

from types import SimpleNamespace

import pytest

from histoloom.encoders.barlow_twins import EncoderTraining
from histoloom.errors import ConfigError
from histoloom.evaluation import encoder_run
from histoloom.fitting.loop import LoopConfig
from histoloom.patches.folder import FolderImport, find_pictures
from histoloom.patches.importer import import_pictures
from histoloom.tissue import TissueTable


@pytest.fixture
def dataset(image_folder):
    config = FolderImport(mpp=0.5, val_share=0.4)
    pictures = find_pictures(image_folder / "images", image_folder / "maps", config)
    table = TissueTable.from_names(["stroma", "gland"])
    import_pictures(pictures, table, config, image_folder / "set")
    return image_folder / "set"


CONFIG = EncoderTraining(size=32, start="random", loop=LoopConfig(steps=1, batch_size=2, workers=0, learning_rate=1e-3))


def test_several_processes_are_refused_before_anything_is_written(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder_run, "process_state", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(ConfigError, match="start `histoloom train-encoder` without a launcher"):
        encoder_run.run_encoder(dataset, CONFIG, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_finished_run_answers_without_reading_its_patches_again(dataset, tmp_path, monkeypatch):
    first = encoder_run.run_encoder(dataset, CONFIG, tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    monkeypatch.setattr(encoder_run, "features", lambda *_: pytest.fail("read again"))
    again = encoder_run.run_encoder(dataset, CONFIG, tmp_path / "out")
    assert repr(again) == repr(first)  # nan is not equal to itself
    assert (tmp_path / "out" / "README.md").read_text() == card
