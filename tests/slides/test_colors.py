"""Slides whose pixels mean something else than 8-bit RGB are refused by name, never guessed."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from slide_files import MPP, coordinate_image

from histoloom.errors import SlideError
from histoloom.slides.reader import open_slide

PIXELS = coordinate_image(256, 192)
TILED = {"tile": (128, 128)}
STRIPS = {"rowsperstrip": 32}


@pytest.mark.parametrize("layout", [TILED, STRIPS], ids=["tiled", "strips"])
@pytest.mark.parametrize(
    ("pixels", "options", "found"),
    [
        (np.dstack([PIXELS, PIXELS[..., 0]]), {"photometric": "separated"}, "CMYK"),
        (PIXELS, {"photometric": "cielab"}, "CIELAB"),
        (PIXELS[..., 0], {"photometric": "minisblack"}, "grayscale"),
        (PIXELS.astype(np.uint16) * 16, {"photometric": "rgb"}, "16 bits per color"),
        (PIXELS, {"photometric": "rgb", "extratags": [(274, "H", 1, 6, True)]}, "orientation 6"),
        (PIXELS, {"photometric": "rgb", "extratags": [(274, "H", 1, 2, True)]}, "orientation 2"),
    ],
)
def test_what_is_not_upright_rgb_is_refused(tmp_path, layout, pixels, options, found):
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata=None, **layout, **options)
    with pytest.raises(SlideError, match=rf"a\.tif: not an 8-bit RGB image.*{found}"):
        open_slide(tmp_path / "a.tif", MPP)


def test_orientation_one_is_upright(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", extratags=[(274, "H", 1, 1, True)], **TILED)
    with open_slide(tmp_path / "a.tif", MPP) as slide:
        assert np.array_equal(slide.read(0, 0, (256, 192), MPP), PIXELS)


@pytest.mark.parametrize(("extra", "premultiplied"), [("unassalpha", False), ("assocalpha", True)])
@pytest.mark.parametrize("name", ["a.ome.tif", "strips.tif"])
def test_transparent_pixels_are_glass(tmp_path, extra, premultiplied, name):
    alpha = np.full(PIXELS.shape[:2], 255, np.uint8)
    alpha[:, :100], alpha[:, 100:110] = 0, 51
    color = np.rint(PIXELS * (alpha[..., None] / 255)).astype(np.uint8) if premultiplied else PIXELS.copy()
    color[:, :100] = 0
    options = {"metadata": {"axes": "YXS", "PhysicalSizeX": MPP, "PhysicalSizeY": MPP}, **TILED}
    options = options if "ome" in name else {"metadata": None, **STRIPS}
    tifffile.imwrite(tmp_path / name, np.dstack([color, alpha]), photometric="rgb", extrasamples=[extra], **options)
    with open_slide(tmp_path / name, MPP) as slide:
        seen = slide.read(0, 0, (256, 192), MPP).astype(int)
    assert (seen[:, :100] == 255).all()
    assert np.array_equal(seen[:, 110:], PIXELS[:, 110:])
    assert np.abs(seen[:, 100:110] - (255 * 0.8 + 0.2 * PIXELS[:, 100:110])).max() <= 1


CHANNELS = np.moveaxis(PIXELS, -1, 0)


@pytest.mark.parametrize(
    ("names", "is_rgb"),
    [(["Red", "Green", "Blue"], True), (["R", "G", "B"], True), (["DAPI", "FITC", "Cy3"], False), (None, False)],
)
def test_three_gray_channels_are_rgb_only_where_the_file_says_so(tmp_path, names, is_rgb):
    metadata = {"axes": "CYX", "PhysicalSizeX": MPP, "PhysicalSizeY": MPP} | (
        {"Channel": {"Name": names}} if names else {}
    )
    tifffile.imwrite(tmp_path / "a.ome.tif", CHANNELS, photometric="minisblack", metadata=metadata, **TILED)
    if is_rgb:
        with open_slide(tmp_path / "a.ome.tif") as slide:
            assert np.array_equal(slide.read(0, 0, (256, 192), MPP), PIXELS)
    else:
        with pytest.raises(SlideError, match="may be fluorescence; export the H&E image as 8-bit RGB"):
            open_slide(tmp_path / "a.ome.tif")


@pytest.mark.parametrize("mode", ["L", "LA", "CMYK", "I;16", "1"])
def test_plain_images_follow_the_same_rule(tmp_path, mode):
    name = "a.jpg" if mode == "CMYK" else "a.png"
    picture = Image.new("I;16", (64, 64)) if mode == "I;16" else Image.new("RGB", (64, 64)).convert(mode)
    picture.save(tmp_path / name)
    with pytest.raises(SlideError, match=rf"{name}: not an 8-bit RGB image"):
        open_slide(tmp_path / name, MPP)


@pytest.mark.parametrize("sign", ["&#181;m", "&#xB5;m", "\u00b5m", "\u03bcm", "um", " um ", "micron"])
@pytest.mark.parametrize("quote", ['"', "'"])
def test_the_micrometer_of_ome_is_read_in_every_spelling(tmp_path, sign, quote):
    xml = (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image '
        'ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="256" SizeY="192" SizeC="3" '
        'SizeZ="1" SizeT="1" PhysicalSizeX = "0.25" PhysicalSizeY="0.25" PhysicalSizeXUnit="UNIT" '
        'PhysicalSizeYUnit="UNIT"><Channel ID="Channel:0:0" SamplesPerPixel="3"/><TiffData IFD="0" PlaneCount="1"/>'
        "</Pixels></Image></OME>"
    ).replace("UNIT", sign)
    xml = xml[: xml.index("<Pixels")] + xml[xml.index("<Pixels") :].replace('"', quote)
    tifffile.imwrite(
        tmp_path / "a.ome.tif", PIXELS, photometric="rgb", description=xml.encode(), metadata=None, **TILED
    )
    assert open_slide(tmp_path / "a.ome.tif").mpp == 0.25


def test_a_file_of_imagej_says_its_unit_in_its_description(tmp_path):
    options = {"imagej": True, "resolution": (4.0, 4.0), "metadata": {"unit": "um", "axes": "YXS"}}
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", **options)
    assert open_slide(tmp_path / "a.tif").mpp == pytest.approx(0.25)
