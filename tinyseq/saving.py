"""Checkpoints: a nested dictionary in, the same nested dictionary out, in one safetensors file.

Arrays and Tensors are stored as tensors, named by their path (``model/head.weight``), so that any
safetensors reader can open them; numbers, strings, lists and what else JSON knows go into the
file's header. A file is written beside its final name and then moved onto it: there is the old
checkpoint or the new one, never half of one. A checksum over all of it tells a damaged file from a
sound one.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from tinyseq.tensor import Tensor

_FORMAT = 1
_ARRAY = "array:"  # how the JSON refers to a tensor of the file


class CheckpointError(ValueError):
    """A file that is not a whole checkpoint of tinyseq; the message says what it is instead."""


def save(path: str | os.PathLike[str], tree: Mapping[str, Any]) -> None:
    """Write a nested dictionary of arrays and JSON values to ``path``, atomically.

    Keys are strings without ``/``. Tuples come back as lists, Tensors (a state) as arrays. Arrays
    keep shape and dtype (bool, integer or float). A training run keeps everything it goes on from::

        save("last.safetensors", {"model": model.state_dict(), "optimiser": optimiser.state_dict(),
                                  "state": state, "random": ts.random.get_state(), "step": step})

    Raises:
        TypeError, ValueError: a value that cannot be stored, or a key that is not such a string.
        OSError: the folder is missing, not writable or full. What was at ``path`` stays as it was.
    """
    arrays: dict[str, np.ndarray] = {}
    header = json.dumps(_replace_arrays(tree, "", arrays))
    metadata = {
        "tinyseq": str(_FORMAT),
        "tree": header,
        "crc32": str(_checksum(header, arrays)),
    }
    write_atomically(path, safetensors.numpy.save(arrays, metadata=metadata))


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Make ``data`` the whole contents of ``path``, or leave what was there: never half of it.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave a new name on an empty file
        os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C included: no temporary file is left behind
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise OSError(
                f"cannot write {path}: {error.strerror or error}. Choose a folder that exists, "
                "is writable and has room"
            ) from error
        raise


def load(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the nested dictionary that `save` wrote to ``path``.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: it cannot be read.
        CheckpointError: not a safetensors file, one that something else wrote, or a damaged one.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with open(path, "rb"):  # safetensors hides the reason when a file cannot be opened
            pass
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if "tinyseq" not in metadata:
                raise CheckpointError(
                    f"{path} is a safetensors file, but not a checkpoint of tinyseq"
                )
            if metadata["tinyseq"] != str(_FORMAT):
                raise CheckpointError(
                    f"{path} has checkpoint format {metadata['tinyseq']}, and this tinyseq reads "
                    f"{_FORMAT}"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise OSError(f"cannot read {path}: {error.strerror or error}") from error
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged, or not a safetensors file at all ({error})"
        ) from error
    header = metadata.get("tree", "")
    if metadata.get("crc32") != str(_checksum(header, arrays)):
        raise CheckpointError(f"{path} is damaged: its contents do not match its checksum")
    try:
        tree = _restore_arrays(json.loads(header), arrays)
    except (KeyError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is no checkpoint that tinyseq wrote: {error}") from error
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} holds a {type(tree).__name__}, not a dictionary")
    return tree


def _replace_arrays(value: Any, path: str, arrays: dict[str, np.ndarray]) -> Any:
    """The tree as JSON can hold it; each array moves to ``arrays`` and leaves its name behind."""
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or "/" in key:
                raise ValueError(f"a checkpoint's keys are strings without '/', not {key!r}")
        return {
            key: _replace_arrays(v, f"{path}/{key}" if path else key, arrays)
            for key, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [_replace_arrays(v, f"{path}/{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in "biuf":
            raise TypeError(
                f"{path} is an array of {value.dtype}, but a checkpoint holds numbers: "
                "bool, integers or floats"
            )
        # safetensors writes the bytes as they lie, whatever their strides and order say.
        arrays[path] = np.asarray(value, dtype=value.dtype.newbyteorder("="), order="C")
        return _ARRAY + path
    if isinstance(value, str) and value.startswith(_ARRAY):
        raise ValueError(f"{path} is a string that starts with {_ARRAY!r}, which marks arrays")
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(
        f"{path} is a {type(value).__name__}, but a checkpoint holds arrays, dictionaries, "
        "lists, strings and numbers"
    )


def _restore_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        return {key: _restore_arrays(v, arrays) for key, v in value.items()}
    if isinstance(value, list):
        return [_restore_arrays(v, arrays) for v in value]
    if isinstance(value, str) and value.startswith(_ARRAY):
        return arrays[value.removeprefix(_ARRAY)]
    return value


def _checksum(header: str, arrays: Mapping[str, np.ndarray]) -> int:
    crc = zlib.crc32(header.encode())
    for name in sorted(arrays):
        array = arrays[name]
        crc = zlib.crc32(f"{name}{array.dtype.str}{array.shape}".encode(), crc)
        crc = zlib.crc32(array.tobytes(), crc)
    return crc
