"""A bank of real crops: each of one tissue of one case or stain, textured, sharp, and shown once."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import draw_tissue
from folders import files
from scipy.ndimage import gaussian_filter

from histoloom.errors import InputError, OutputError
from histoloom.generation.bank import load_bank
from histoloom.generation.bank_folder import cut_bank_folder
from histoloom.generation.settings import RealBankConfig
from histoloom.patches.store import encode_png, write_shards
from histoloom.tissue import TissueTable

TABLE = TissueTable.from_names(["stroma", "gland"])
STAINS = {"Jane Doe": 0.0, "Max/Moe": np.array([-40.0, 10, 30]), "Eve": np.array([-38.0, 12, 28])}


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Thirteen patches by three cases, of which two are stained alike; one is blurred, one glass, one there twice."""
    rng = np.random.default_rng(1)
    drawn = [(case, *draw_tissue(rng, 96, 2, tint)) for case, tint in STAINS.items() for _ in range(3)]
    _, image, semantic_map = drawn[0]
    whole = draw_tissue(rng, 96, 1, -20.0)[0]
    drawn += [("Jane Doe", picture, np.zeros((96, 96), np.uint8)) for picture in (whole, np.rot90(whole).copy())]
    drawn.append(("Jane Doe", gaussian_filter(image, (3, 3, 0)), semantic_map))
    drawn.append(("Jane Doe", np.full_like(image, 235), semantic_map))
    rows = [
        {"image": encode_png(image), "semantic_map": encode_png(semantic_map), "source": f"{i}.png", "x": 0, "y": 0,
         "size": 96, "mpp": None, "fractions": [0.5, 0.5], "entropy": 0.0, "case": case, "split": "train"}
        for i, (case, image, semantic_map) in enumerate(drawn)
    ]  # fmt: skip
    write_shards(rows, TABLE, tmp_path / "dataset", "train")
    (tmp_path / "dataset" / "tissue.toml").write_text(TABLE.to_toml())
    return tmp_path / "dataset"


def test_each_case_has_a_set_without_glass_blur_and_repeats_and_no_name_of_a_patient(dataset, tmp_path):
    report = cut_bank_folder(dataset, RealBankConfig(per_type=50), tmp_path / "bank")
    bank, key = load_bank(tmp_path / "bank", TABLE), json.loads((tmp_path / "bank" / "sources.local.json").read_text())
    assert set(bank.sets) == {"case-0000", "case-0001", "case-0002"}
    assert set(key["cases"].values()) == set(STAINS)
    of_patch = {f"{i}.png (0, 0)": case for i, case in enumerate(np.repeat(list(STAINS), 3))} | {
        f"{i}.png (0, 0)": "Jane Doe" for i in (9, 10)
    }
    for name, made in key["crops"].items():
        assert of_patch[made["source"]] == key["cases"][name.split("/")[0]]  # neither blurred nor glass
    assert {crop.tissue for crop in bank.sets["case-0001"]} == {0, 1}
    assert {"glass", "patches out of focus", "near-duplicates"} <= report["left_out"].keys()
    assert sum(report["crops"].values()) == len(key["crops"]) == sum(map(len, bank.sets.values()))
    shared = [data for name, data in files(tmp_path / "bank").items() if name != "sources.local.json"]
    assert not any(word in data for data in shared for word in (b"Jane", b"Moe", b"Eve", str(tmp_path).encode()))


def test_cases_that_are_stained_alike_share_a_cluster(dataset, tmp_path):
    cut_bank_folder(dataset, RealBankConfig(by="cluster", keep=2, per_type=50), tmp_path / "bank")
    key = json.loads((tmp_path / "bank" / "sources.local.json").read_text())["crops"]
    numbers = {"cluster-0000": set(), "cluster-0001": set()}
    for name, made in key.items():
        numbers[name.split("/")[0]].add(int(made["source"].split(".")[0]))
    assert sorted(numbers.values(), key=min)[1] <= {3, 4, 5, 6, 7, 8}
    assert sorted(numbers.values(), key=min)[0] <= {0, 1, 2, 9, 10}


def test_a_finished_bank_stays_and_one_of_other_settings_is_refused(dataset, tmp_path):
    made = cut_bank_folder(dataset, RealBankConfig(keep=1, per_type=1), tmp_path / "bank")
    before = files(tmp_path / "bank")
    assert made == cut_bank_folder(dataset, RealBankConfig(keep=1, per_type=1), tmp_path / "bank")
    assert cut_bank_folder(dataset, RealBankConfig(keep=1, per_type=1), tmp_path / "again") == made
    assert files(tmp_path / "bank") == before == files(tmp_path / "again")
    with pytest.raises(OutputError, match="per_type was 1, is now 2"):
        cut_bank_folder(dataset, RealBankConfig(keep=1, per_type=2), tmp_path / "bank")
    with pytest.raises(InputError, match="no patch has room for a crop"):
        cut_bank_folder(dataset, RealBankConfig(min_focus=100.0), tmp_path / "other")
    assert not (tmp_path / "other").exists()
