import json
import shutil
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers.utils import hub_utils
from huggingface_hub import ModelCard
from huggingface_hub.utils import filter_repo_objects
from weaving import KINDS, apart, grain, halves, weave

from histoloom.errors import ConfigError
from histoloom.models.autoencoder import weights_hash
from histoloom.models.pipeline import HistoloomPipeline
from histoloom.models.sampling import Sampling
from histoloom.models.saved_pipeline import FILES
from histoloom.models.schedulers import make_sampler
from histoloom.precision import bf16_is_faster
from histoloom.tensor_files import CHECKSUM, read_tensors
from histoloom.weights import find_model


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_pipeline_weaves_the_same_pixels(pipelines, tmp_path, kind):
    pipeline, crops = pipelines[kind], {"stroma": grain(0), "gland": [grain(1), grain(2)]}
    pipeline.save_pretrained(str(tmp_path))
    assert not list(tmp_path.rglob("*.bin"))
    again = HistoloomPipeline.load(tmp_path, torch.float32)
    assert again.fingerprint == pipeline.fingerprint
    assert again.table == pipeline.table
    np.testing.assert_array_equal(weave(again, halves(0, 1), crops), weave(pipeline, halves(0, 1), crops))


def test_weights_have_a_checksum_and_usual_permissions_before_they_are_uploaded(make_pipeline, tmp_path, monkeypatch):
    def upload(self, folder, repository, **options):
        uploaded.update({path.parent.name: read_tensors(path)[1] for path in Path(folder).rglob("*.safetensors")})
        uploaded["to"] = repository, options["token"]

    uploaded = {}
    monkeypatch.setattr(hub_utils, "create_repo", lambda repository, **_: SimpleNamespace(repo_id=repository))
    monkeypatch.setattr(hub_utils, "load_or_create_model_card", lambda *_, **__: ModelCard("---\n---\n"))
    monkeypatch.setattr(HistoloomPipeline, "_upload_folder", upload)
    make_pipeline().save_pretrained(tmp_path / "model", push_to_hub=True, token="secret")
    assert uploaded.pop("to") == ("model", "secret")
    assert [CHECKSUM in metadata for metadata in uploaded.values()] == [True, True]
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "model").rglob("*") if path.is_file()}
    assert modes == {(tmp_path / "model" / "model_index.json").stat().st_mode & 0o777}


def test_a_model_opens_in_half_precision_and_weaves_nearly_the_same(tiny_model):
    whole, half = (HistoloomPipeline.load(tiny_model, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert (whole.denoiser.dtype, half.denoiser.dtype) == (torch.float32, torch.bfloat16)
    assert whole.fingerprint == half.fingerprint
    woven = (weave(pipeline, halves(0, 1), {0: grain(0)}).astype(float) for pipeline in (half, whole))
    assert np.abs(np.subtract(*woven)).mean() < 3


def test_a_model_opens_in_the_precision_that_this_machine_is_faster_in(tiny_model):
    fast = torch.bfloat16 if bf16_is_faster() else torch.float32
    assert HistoloomPipeline.load(tiny_model).dtype == fast


def test_the_sampler_of_the_model_is_used_and_recorded(make_pipeline, tmp_path):
    pipeline = make_pipeline()
    pipeline.scheduler = make_sampler("flow", "euler")[0]
    pipeline.save_pretrained(str(tmp_path))
    opened = HistoloomPipeline.load(tmp_path)
    scheduler, sampling = opened.resolve(Sampling())
    assert (type(scheduler).__name__, sampling.sampler, sampling.steps) == (
        "FlowMatchEulerDiscreteScheduler", "euler", make_sampler("flow", "euler")[1],
    )  # fmt: skip
    np.testing.assert_array_equal(weave(opened, halves(0, 1)), weave(opened, halves(0, 1), sampler="euler"))
    assert apart(weave(opened, halves(0, 1)), weave(opened, halves(0, 1), sampler="unipc")) > 0
    opened.scheduler = make_sampler("epsilon", "ddim")[0]
    with pytest.raises(ConfigError, match="saved with DDIMScheduler, which does not fit a model of kind 'flow'"):
        weave(opened, halves(0, 1))


def test_a_model_of_the_hub_opens_from_the_cache_of_its_download(tiny_model, tmp_path):
    repository = tmp_path / "models--someone--tiny"
    shutil.copytree(tiny_model, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    opened = HistoloomPipeline.from_pretrained("someone/tiny", cache_dir=tmp_path)
    assert opened.fingerprint == HistoloomPipeline.load(tiny_model).fingerprint
    assert Path(opened.name_or_path) == repository / "snapshots" / "abc"  # its card and its bank are there


def test_every_file_of_a_model_comes_from_the_hub():
    folder = Path(find_model("ebhi-seg-few-steps"))
    files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
    assert "training.safetensors" in files
    assert list(filter_repo_objects(files, allow_patterns=FILES)) == files


def test_a_model_of_before_there_was_a_copy_limit_or_a_scale_has_none(tiny_model, tmp_path):
    model = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    index = json.loads((model / "model_index.json").read_text())
    for name in ("copy_limit", "mpp"):
        index.pop(name, None)
    (model / "model_index.json").write_text(json.dumps(index))
    opened = HistoloomPipeline.load(model)
    assert (opened.copy_limit, opened.mpp) == (None, None)


def test_the_fingerprint_is_of_every_weight(make_pipeline):
    one, other = make_pipeline(), make_pipeline()
    assert one.fingerprint == other.fingerprint == weights_hash(one.autoencoder, one.denoiser)
    assert len(one.fingerprint) == 16
    with torch.no_grad():
        next(other.autoencoder.parameters()).flatten()[0] += 1e-3
    assert one.fingerprint != other.fingerprint
    changed = one.fingerprint
    next(other.denoiser.parameters()).data = next(one.denoiser.parameters()).data.clone()
    assert other.fingerprint == weights_hash(other.autoencoder, other.denoiser)
    assert one.fingerprint == changed


def test_a_saved_header_holds_no_pickle(tiny_model):
    for weights in tiny_model.rglob("*.safetensors"):
        data = weights.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        assert json.loads(data[8 : 8 + length])
