import os

import pytest

from histoloom.config import load_recipe
from histoloom.disk import open_input, read_input
from histoloom.errors import HistoloomError
from histoloom.models.model_files import check_weights
from histoloom.parquet import read_rows
from histoloom.patches.table_files import read_csv
from histoloom.pictures import open_picture
from histoloom.records import fingerprint, read_json
from histoloom.slides.annotations import raster_size, read_polygons
from histoloom.tissue import TissueTable

READERS = {
    "a picture": open_picture,
    "JSON": read_json,
    "a fingerprint": fingerprint,
    "a recipe": load_recipe,
    "a tissue table": TissueTable.load,
    "a table": lambda path: read_csv(path, "slides"),
    "Parquet": read_rows,
    "a mask": raster_size,
    "annotations": read_polygons,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("place", ["pipe", "/dev/zero"])
def test_a_pipe_or_device_is_refused_in_one_line_and_not_waited_for(tmp_path, name, place):
    path = tmp_path / place  # the absolute one stays
    if not path.exists():
        os.mkfifo(path)
    with pytest.raises(HistoloomError, match=f"{path}: .*a pipe or a device, not a file") as caught:
        READERS[name](path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_a_pipe_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "a.safetensors")
    with pytest.raises(HistoloomError, match="a pipe or a device, not a file"):
        check_weights(tmp_path, dict)


def test_a_file_is_read_through_a_link(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    (tmp_path / "b").symlink_to("a")
    assert read_input(tmp_path / "b") == b"abc"
    with open_input(tmp_path / "b") as file:
        assert file.read(1) == b"a"
