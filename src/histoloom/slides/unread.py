"""Images in a TIFF besides the one that is read: other scenes, planes of a stack, pages that are larger.

Reduced levels, labels, macro pictures and thumbnails are none of them.
"""

from collections.abc import Sequence

import tifffile

from histoloom.errors import SlideError

_BESIDE = ("label", "macro", "thumbnail", "overview", "barcode")  # in names of pictures that go with a slide
_SAME_SHAPE = 0.02  # ratios of edges that differ by less are those of levels and thumbnails
_SMALL = 4  # times smaller than what is read: pages without a name are taken for a label or a macro picture

Size = tuple[int, int]


def note_on_pages(tiff: tifffile.TiffFile, levels: Sequence[Size]) -> list[str]:
    """A line on pages that are none of the `levels`, from fine to coarse; raises SlideError for a larger one."""
    sizes, used = [_size(page) for page in (page.aspage() for page in tiff.pages) if not page.is_reduced], levels[0]
    for size in set(levels) & set(sizes):
        sizes.remove(size)
    return _note(tiff, [size for size in sizes if _counts(size, used)], used)


def note_on_series(tiff: tifffile.TiffFile, taken: tifffile.TiffPageSeries, used: Size) -> list[str]:
    """A line on series that are not read where `taken` is; raises SlideError for a larger one."""
    others = [
        series
        for series in tiff.series
        if series is not taken
        and not series.keyframe.is_reduced
        and not any(word in series.name.lower() for word in _BESIDE)
    ]
    sizes = [_size(series.keyframe) for series in others]
    return _note(tiff, sizes if tiff.is_ome else [size for size in sizes if _counts(size, used)], used)


def _note(tiff: tifffile.TiffFile, sizes: list[Size], used: Size) -> list[str]:
    if not sizes:
        return []
    width, height = max(sizes, key=_area)
    if _area((width, height)) > _area(used):
        raise SlideError(
            f"{tiff.filehandle.path}: holds an image of {width} x {height} px, larger than the first of {used[0]} x "
            f"{used[1]} px, which would be read; save the one that counts as a file of its own"
        )
    return [
        f"holds {len(sizes)} more {'image' if len(sizes) == 1 else 'images'} (of {width} x {height} px) besides the "
        f"one of {used[0]} x {used[1]} px that is read; save each that counts as a file of its own"
    ]


def _counts(size: Size, used: Size) -> bool:
    """Whether an image without a name is neither a level nor a picture that goes with the slide."""
    if _area(size) >= _area(used):
        return True
    is_alike = abs(size[0] * used[1] / (size[1] * used[0]) - 1) < _SAME_SHAPE
    return not is_alike and _area(size) * _SMALL >= _area(used)


def _size(page: tifffile.TiffPage) -> Size:
    return page.imagewidth, page.imagelength


def _area(size: Size) -> int:
    return size[0] * size[1]
