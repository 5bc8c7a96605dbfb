"""Read files of weights in the format of safetensors, bfloat16 included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from minires.errors import InputError
from minires.exchange import torch_files
from minires.text import shown

Array = np.ndarray
METADATA = "minires"  # the key of our metadata
TYPES = ("BF16", "F16", "F32", "F64", "I8", "I16", "I32", "I64", "U8", "BOOL")


def read(path: Path) -> tuple[dict[str, Array], Any]:
    """Read the arrays of a file, and our metadata in it, {} in files of others.

    Raises
    ------
    InputError
        If an array has a type that is not in `TYPES`.
    SafetensorError, ValueError, OSError
        If the file is damaged.
    """
    with safe_open(path, framework="numpy") as f:
        types = {key: f.get_slice(key).get_dtype() for key in f.keys()}  # noqa: SIM118  # no dict
        for key, dtype in types.items():
            if dtype not in TYPES:
                raise InputError(
                    f"{shown(path)}: {shown(key, 60)} holds numbers of type {dtype}, expected "
                    f"{', '.join(TYPES)}; save the weights as float32 where they were made"
                )
        metadata = json.loads((f.metadata() or {}).get(METADATA, "{}"))
        half = {key for key, dtype in types.items() if dtype == "BF16"}
        read = {key: f.get_tensor(key) for key in types if key not in half}
    halves = _read_bfloat16(path, half) if half else {}
    return {key: halves[key] if key in half else read[key] for key in types}, metadata


def _read_bfloat16(path: Path, keys: set[str]) -> dict[str, Array]:
    """Arrays of a safetensors file, whose header was checked, in a type that NumPy lacks."""
    with path.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(length))
        found = {}
        for key in keys:
            start, end = header[key]["data_offsets"]
            f.seek(8 + length + start)
            flat = torch_files.numbers(f.read(end - start), "bfloat16")
            found[key] = flat.reshape(header[key]["shape"])
    return found
