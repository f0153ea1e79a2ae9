"""Columns of a patch row, the same for slides and for image folders.

A row is a place (`source`, `x`, `y`, `size`, `mpp`) and what is known of it; `image` and `semantic_map` hold the pixels
where they were written along, and are null in an index of places. They are structs of bytes and path, as HF `datasets`
stores its `Image` feature, so `datasets.load_dataset("parquet", ...)` opens a shard and decodes it.
"""

import json

import pyarrow as pa

from histoloom.tissue import TissueTable

TYPES = b"histoloom.tissue"  # key of the metadata of a shard: the tissue table that it was written with
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])

COLUMNS = pa.schema(
    [
        pa.field("image", _IMAGE),  # RGB, lossless unless asked otherwise
        pa.field("semantic_map", _IMAGE),  # one channel, ids, 255 = unlabeled
        pa.field("source", pa.string(), nullable=False),  # slide or image file, relative to the data root
        pa.field("x", pa.int64(), nullable=False),  # level-0 pixels of the top-left corner
        pa.field("y", pa.int64(), nullable=False),
        pa.field("size", pa.int32(), nullable=False),  # edge in level-0 pixels
        pa.field("mpp", pa.float64()),  # micrometers per pixel of the patch; null where unknown
        pa.field("fractions", pa.list_(pa.float32()), nullable=False),  # by tissue id
        pa.field("entropy", pa.float32(), nullable=False),  # nats
        pa.field("case", pa.string(), nullable=False),  # patient: never on both sides of a split
        pa.field("split", pa.string(), nullable=False),  # train, val, test
    ]
)

_HF_FEATURES = {
    "image": {"_type": "Image"},
    "semantic_map": {"_type": "Image"},
    "source": {"dtype": "string", "_type": "Value"},
    "x": {"dtype": "int64", "_type": "Value"},
    "y": {"dtype": "int64", "_type": "Value"},
    "size": {"dtype": "int32", "_type": "Value"},
    "mpp": {"dtype": "float64", "_type": "Value"},
    "fractions": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "List"},
    "entropy": {"dtype": "float32", "_type": "Value"},
    "case": {"dtype": "string", "_type": "Value"},
    "split": {"dtype": "string", "_type": "Value"},
}


def arrow_schema(table: TissueTable) -> pa.Schema:
    """COLUMNS with the tissue table and the HF features in the metadata, so that one shard explains itself."""
    metadata = {
        "huggingface": json.dumps({"info": {"features": _HF_FEATURES}}),
        TYPES: json.dumps(table.to_rows()),
    }
    return COLUMNS.with_metadata(metadata)
