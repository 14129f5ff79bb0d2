"""vectorlake in PyTorch: tables as datasets, streamed and shuffled in parts or read by position, as tensors.

>>> import vectorlake as vl, vectorlake_torch
>>> lake = vl.connect("memory://torch-doc")
>>> items = lake.create_table("ns.items", {"id": [1, 2, 3], "label": [0, 1, 0]})
>>> [batch["id"].tolist() for batch in vectorlake_torch.IterableTable(items, batch_size=2)]
[[1, 2], [3]]
"""

from __future__ import annotations

from vectorlake import UnsupportedError

try:
    import torch  # noqa: F401
except ImportError as e:
    raise UnsupportedError("vectorlake_torch needs PyTorch: pip install 'vectorlake[torch]'") from e

from vectorlake_torch._read import IterableTable, MapTable
from vectorlake_torch._types import tensors

__all__ = ["IterableTable", "MapTable", "tensors"]
