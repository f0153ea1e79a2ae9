from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from histoloom.tensor_files import CHECKSUM, read_tensors, save_tensors
from histoloom.weights import find_model

TENSORS = {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor(7), "half": torch.ones(3, dtype=torch.bfloat16)}
METADATA = {"z": '{"ä": "\\u0001\n"}', "format": "pt"}


def test_tensors_and_metadata_come_back_here_and_in_other_programs(tmp_path):
    save_tensors(TENSORS, tmp_path / "a.safetensors", METADATA)
    tensors, metadata = read_tensors(tmp_path / "a.safetensors")
    for found in (tensors, load_file(tmp_path / "a.safetensors")):
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
    assert metadata.items() >= METADATA.items()


def test_equal_content_gives_equal_bytes(tmp_path):
    for number in range(8):  # the library shuffles metadata
        save_tensors(TENSORS, tmp_path / f"{number}", METADATA)
    assert len({(tmp_path / f"{number}").read_bytes() for number in range(8)}) == 1


def test_no_byte_that_changes_gives_other_weights(tmp_path):
    path = tmp_path / "a.safetensors"
    save_tensors(TENSORS, path, METADATA)
    whole, refused = path.read_bytes(), 0
    places = range(0, len(whole), 3)
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            tensors, _ = read_tensors(path)
        except ValueError:
            refused += 1
        else:  # the name of the checksum alone has changed
            assert all(torch.equal(tensors[name], value) for name, value in TENSORS.items())
    assert refused >= len(places) - len(CHECKSUM)


def test_a_file_of_another_program_has_no_checksum_and_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "a.safetensors")
    assert torch.equal(read_tensors(tmp_path / "a.safetensors")[0]["b"], TENSORS["b"])


@pytest.mark.parametrize(
    "text", ["[]", "{", "[" * 10**5, '{"a": 1}', '{"__metadata__": {"histoloom.sha256": 5}}', '{"__metadata__": 5}']
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path, text):
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text.encode())
    with pytest.raises(ValueError, match=r"header|checksum|JSON|Expecting"):
        read_tensors(path)


def test_every_bundled_file_of_weights_has_a_checksum():
    bundled = sorted(Path(find_model("ebhi-seg")).parent.rglob("*.safetensors"))
    assert len(bundled) >= 7
    assert [path for path in bundled if CHECKSUM not in read_tensors(path)[1]] == []
