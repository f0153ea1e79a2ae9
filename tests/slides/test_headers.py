"""Headers that make a native library end the process cost their slide, and nothing else."""

import struct

import numpy as np
import pytest
import tifffile
from scanner_files import write_mrxs
from slide_files import coordinate_image

from histoloom.errors import SlideError
from histoloom.slides import headers
from histoloom.slides.reader import open_slide


@pytest.mark.parametrize("edge", [2**20, 2**30])
def test_tiles_that_no_memory_holds_are_refused_before_openslide_sees_them(tmp_path, edge):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, coordinate_image(256, 256), tile=(128, 128), photometric="rgb", compression="zlib")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tiff:
        for name in ("TileWidth", "TileLength", "ImageWidth", "ImageLength"):
            tag = tiff.pages[0].tags[name]
            data[tag.offset + 2 : tag.offset + 4] = struct.pack("<H", 4)
            data[tag.offset + 8 : tag.offset + 12] = struct.pack("<I", edge)
    path.write_bytes(bytes(data))
    with pytest.raises(SlideError, match=r"a\.tif: damaged: a page claims"):
        open_slide(path, 0.25)


def test_a_file_that_ends_the_process_of_its_reader_is_refused(tmp_path, monkeypatch):
    path = write_mrxs(tmp_path / "a.mrxs", coordinate_image(301, 203))
    monkeypatch.setattr(headers, "_PROBE", "import os; os.abort()")
    headers._probe.cache_clear()
    with pytest.raises(SlideError, match=r"a\.mrxs: damaged: it makes OpenSlide end its process"):
        open_slide(path)
    headers._probe.cache_clear()
    monkeypatch.undo()
    with open_slide(path) as slide:
        assert slide.read(0, 0, 64, 0.25).dtype == np.uint8
    headers._probe.cache_clear()
