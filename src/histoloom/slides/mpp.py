"""What files say of the size of a pixel, in micrometers, and of the meaning of their channels."""

import html
import re
from collections.abc import Iterator

import numpy as np
import tifffile

# Coarser than this (below 1,270 dpi) is a screen or a printer, left in the tag by the program that saved the file.
COARSEST_MPP = 20.0
_MICROMETERS = {
    "": 1.0, "µm": 1.0, "μm": 1.0, "um": 1.0, "micron": 1.0, "microns": 1.0, "micrometer": 1.0, "micrometre": 1.0,
    "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "in": 25400.0, "inch": 25400.0,
}  # fmt: skip
_TAG_UNITS = {"inch": 25400.0, "centimeter": 10000.0, "2": 25400.0, "3": 10000.0}
_ATTRIBUTE = re.compile(r"""([\w:]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
_RGB_NAMES = [{"red", "r"}, {"green", "g"}, {"blue", "b"}]
_RGB_COLORS = [{-16776961, 4278190335}, {16711935}, {65535}]  # OME packs red, green, blue, alpha into a signed integer


def ome_mpp(xml: str, width: int, height: int) -> tuple[float, float] | None:
    """PhysicalSizeX and -Y of the image of this size; by pattern, since XML from strangers is not parsed."""
    for values in _elements(xml, "Pixels"):
        if (values.get("SizeX"), values.get("SizeY")) == (str(width), str(height)):
            sizes = (number(values.get(f"PhysicalSize{axis}")) for axis in "XY")
            units = (_micrometers(values.get(f"PhysicalSize{axis}Unit", "")) for axis in "XY")
            return plausible(*((size or np.nan) * unit for size, unit in zip(sizes, units, strict=True)))
    return None


def ome_channels_are_rgb(xml: str) -> bool:
    """True where the three channels are named or colored red, green and blue."""
    channels = list(_elements(xml, "Channel"))
    if len(channels) < 3:
        return False
    for values, names, colors in zip(channels[:3], _RGB_NAMES, _RGB_COLORS, strict=True):
        name, color = values.get("Name", "").strip().casefold(), number(values.get("Color"))
        if "EmissionWavelength" in values or "Fluor" in values:
            return False
        if name not in names and color not in colors:
            return False
    return True


def imagej_mpp(metadata: object, page: tifffile.TiffPage) -> tuple[float, float] | None:
    """The resolution of a file of ImageJ, whose unit is in its description; None for other files."""
    unit = metadata.get("unit") if isinstance(metadata, dict) else None
    if not isinstance(unit, str) or unit.strip().casefold() in ("", "pixel"):
        return None
    return _from_tags(page, _micrometers(unit.encode().decode("unicode_escape", "replace") if "\\" in unit else unit))


def tag_mpp(page: tifffile.TiffPage) -> tuple[float, float] | None:
    """From XResolution, YResolution and ResolutionUnit; None without a unit or where the value is that of a screen."""
    return _from_tags(page, tag_unit(str(int(page.tags.valueof("ResolutionUnit", default=1)))))


def tag_unit(name: str) -> float:
    """Micrometers of a ResolutionUnit; 0 for none."""
    return _TAG_UNITS.get(name, 0.0)


def plausible(x: float | None, y: float | None) -> tuple[float, float] | None:
    """The pair where both are pixel sizes of a microscope, else None."""
    return (x, y) if x and y and 0 < x <= COARSEST_MPP and 0 < y <= COARSEST_MPP else None


def number(text: object) -> float | None:
    """A number in a text; None for anything else."""
    try:
        return float(text)  # pyright: ignore[reportArgumentType] (anything but text is refused below)
    except (TypeError, ValueError):
        return None


def _from_tags(page: tifffile.TiffPage, unit: float) -> tuple[float, float] | None:
    values = [page.tags.valueof(f"{axis}Resolution", default=(0, 1)) for axis in "XY"]
    if not all(isinstance(value, tuple) and len(value) == 2 and all(value) for value in values):
        return None
    return plausible(*(unit * denominator / numerator for numerator, denominator in values))


def _micrometers(unit: str) -> float:
    return _MICROMETERS.get(unit.strip(), _MICROMETERS.get(unit.strip().casefold(), np.nan))


def _elements(xml: str, name: str) -> Iterator[dict[str, str]]:
    """Attributes of all elements of this name, with their entities resolved."""
    for tag in re.findall(rf"<(?:\w+:)?{name}\b[^>]*>", xml):
        yield {key: html.unescape(double or single) for key, double, single in _ATTRIBUTE.findall(tag)}
