"""What a Parquet file says of itself, read within bounds, before any of its columns is."""

from pathlib import Path
from typing import Any

from compressor.data.csv_rows import MOST_COLUMNS
from compressor.errors import KdcError, first_line
from compressor.files.reading import open_regular

__all__ = ["footer_of", "reading"]

MOST_FOOTER = 100_000_000
MOST_ROWS = 20_000_000


def footer_of(path: Path) -> tuple[Any, Any]:
    """The (Arrow) schema and the metadata of a regular file; raises KdcError where it is damaged, or has more columns
    or rows than a table of images or answers."""
    with open_regular(path) as file:  # pyarrow would wait for a pipe
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 8))
        end = file.read(8)
    length = int.from_bytes(end[:4], "little")
    if end[4:] == b"PAR1" and length > MOST_FOOTER:
        raise KdcError(f"{path}: its description of itself has {length:,} bytes; at most {MOST_FOOTER:,} are read")
    metadata = reading(path, lambda parquet: parquet.read_metadata(path))
    if metadata.num_columns > MOST_COLUMNS:
        raise KdcError(f"{path} has {metadata.num_columns:,} columns; at most {MOST_COLUMNS:,} are read")
    if metadata.num_rows > MOST_ROWS:
        raise KdcError(f"{path} has {metadata.num_rows:,} rows; at most {MOST_ROWS:,} are read")
    return reading(path, lambda parquet: metadata.schema.to_arrow_schema()), metadata


def reading(path: Path, read: Any) -> Any:
    """What `read` returns for the module pyarrow.parquet; raises KdcError where the file cannot be read."""
    import pyarrow
    from pyarrow import parquet

    try:
        return read(parquet)
    except MemoryError:
        raise KdcError(f"{path} does not fit into the memory of this machine") from None
    # A damaged file may also promise a text that is none, or a length that no array has.
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        raise KdcError(f"{path} is no readable Parquet file: {first_line(error)}") from error
