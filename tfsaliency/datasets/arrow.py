"""The import of pyarrow, which only data sets need."""

from __future__ import annotations

import functools
from typing import Any


@functools.cache
def import_pyarrow() -> Any:
    """Return pyarrow with its modules parquet and compute, or raise ImportError."""
    try:
        import pyarrow  # noqa: PLC0415
        import pyarrow.compute  # noqa: PLC0415
        import pyarrow.parquet  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ImportError(
            "Expected pyarrow, which reads and writes data sets. Received: an environment without "
            "it. Install it: pip install pyarrow."
        ) from error
    return pyarrow
