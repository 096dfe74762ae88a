"""Checkpoints: a nested dictionary in, the same nested dictionary out, in one safetensors file.

Arrays and Tensors are stored as tensors, named by their path (``model/head.weight``), so that any
safetensors reader can open them; numbers, strings, lists and what else JSON knows go into the
file's header. A file is written beside its final name and then moved onto it: there is the old
checkpoint or the new one, never half of one. A checksum over all of it tells a damaged file from a
sound one.

A run that is killed while it writes leaves a hidden file, ``.last.safetensors.1f2e3d4c``. Whoever
writes to the same name next removes it. One that is being written is locked, and so left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy

from tinyseq.tensor import Tensor, plain

if sys.platform != "win32":  # there, what a killed run leaves stays
    import fcntl

_FORMAT = 1
_ARRAY = "array:"  # how the JSON refers to a tensor of the file
_DEEPEST = 100  # dictionaries and lists within each other: what reads JSON has a limit
_DIGITS = 4000  # of a whole number: what reads JSON has a limit
_LARGEST = 10**_DIGITS


class CheckpointError(ValueError):
    """A file that is not a whole checkpoint of tinyseq; the message says what it is instead."""


def save(path: str | os.PathLike[str], tree: Mapping[str, Any]) -> None:
    """Write a nested dictionary of arrays and JSON values to ``path``, atomically.

    Keys are strings without ``/``. Tuples come back as lists, Tensors (a state) as arrays. Arrays
    keep shape and dtype (bool, integer or float of at most 64 bits). What is written can be read. A
    training run keeps everything it goes on from::

        save("last.safetensors", {"model": model.state_dict(), "optimiser": optimiser.state_dict(),
                                  "state": state, "random": ts.random.get_state(), "step": step})

    Raises:
        TypeError, ValueError: a value that cannot be stored, or a key that is not such a string.
        OSError: the folder is missing, not writable or full. What was at ``path`` stays as it was.
    """
    if not isinstance(tree, Mapping):
        raise TypeError(
            f"a checkpoint is a dictionary, not a {type(tree).__name__}. Give it a name: "
            '{"state": …}.'
        )
    arrays: dict[str, np.ndarray] = {}
    header = json.dumps(_replace_arrays(tree, (), arrays))
    metadata = {
        "tinyseq": str(_FORMAT),
        "tree": header,
        "crc32": str(_checksum(header, arrays)),
    }
    try:
        data = safetensors.numpy.save(arrays, metadata=metadata)
    except safetensors.SafetensorError as error:
        raise ValueError(
            "lists, strings and names of a checkpoint have room for 100 MB, and these take "
            f"{len(header):,d} bytes ({error}). Save long lists of numbers as arrays."
        ) from error
    write_atomically(path, data)


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Make ``data`` the whole contents of ``path``, or leave what was there: never half of it.

    Raises:
        OSError: the folder is missing, not writable or full.
    """
    path = Path(path)
    temporary = None
    try:
        _remove_leftovers(path)
        temporary, file = _new_beside(path)
        with file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # else a power cut may leave a new name on an empty file
            if sys.platform != "win32":  # while it is locked
                os.replace(temporary, path)
        if sys.platform == "win32":
            os.replace(temporary, path)
    except BaseException as error:  # Ctrl-C included: no temporary file is left behind
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        if isinstance(error, OSError):
            raise OSError(
                f"cannot write {path}: {error.strerror or error}. Choose a folder that exists, "
                "is writable and has room"
            ) from error
        raise


def _new_beside(path: Path) -> tuple[Path, BinaryIO]:
    """A new file to be renamed to ``path``, open, and locked for as long as it is."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        file = open(temporary, "xb")  # noqa: SIM115
        if sys.platform == "win32":
            return temporary, file
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.stat(temporary), os.fstat(file.fileno())):
                return temporary, file
        file.close()  # somebody took it for a leftover before it was locked


def _remove_leftovers(path: Path) -> None:
    """Remove what killed runs left when they wrote to ``path``."""
    if sys.platform == "win32":
        return
    name = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]{{8}}")
    with os.scandir(path.parent) as entries:
        left = [entry.path for entry in entries if name.fullmatch(entry.name)]
    for leftover in left:
        # locked: another run is writing it; gone: it has just been renamed
        with contextlib.suppress(OSError), open(leftover, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(leftover)


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
            with _damaged(path, "holds what NumPy cannot read"):
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
    with _damaged(path, "is no checkpoint that tinyseq wrote"):
        tree = _restore_arrays(json.loads(header), arrays)
    if not isinstance(tree, dict):
        raise CheckpointError(f"{path} holds a {type(tree).__name__}, not a dictionary")
    return tree


@contextlib.contextmanager
def _damaged(path: Path, what: str) -> Iterator[None]:
    """Any error inside is one of the file. There are many kinds: of types that NumPy lacks, of
    sizes that overflow, of JSON that is nested too deep.
    """
    try:
        yield
    except (OSError, MemoryError, safetensors.SafetensorError):
        raise
    except Exception as error:
        raise CheckpointError(f"{path} {what}: {error}") from error


def _replace_arrays(value: Any, keys: tuple[str, ...], arrays: dict[str, np.ndarray]) -> Any:
    """The tree as JSON can hold it; each array moves to ``arrays`` and leaves its name behind."""
    path = "/".join(keys)
    if len(keys) > _DEEPEST:
        raise ValueError(
            f"{'/'.join(keys[:3])}/… is more than {_DEEPEST} dictionaries and lists within each "
            "other, or one within itself"
        )
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str) or "/" in key:
                raise ValueError(f"a checkpoint's keys are strings without '/', not {key!r}")
        return {key: _replace_arrays(v, (*keys, key), arrays) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_arrays(v, (*keys, str(i)), arrays) for i, v in enumerate(value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Tensor):
        value = value.numpy()
    if isinstance(value, np.ndarray):
        arrays[path] = _storable(value, path)
        return _ARRAY + path
    if isinstance(value, str) and value.startswith(_ARRAY):
        raise ValueError(f"{path} is a string that starts with {_ARRAY!r}, which marks arrays")
    if isinstance(value, int) and abs(value) >= _LARGEST:
        raise ValueError(f"{path} is a whole number of more than {_DIGITS:,d} digits")
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(
        f"{path} is a {type(value).__name__}, but a checkpoint holds arrays, dictionaries, "
        "lists, strings and numbers"
    )


def _storable(array: np.ndarray, path: str) -> np.ndarray:
    """The array as safetensors writes it: the bytes as they lie, whatever strides and order say."""
    try:
        plain(array)
    except TypeError as error:
        raise TypeError(f"{path}: {error}") from error
    try:
        path.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the name {path!r} of an array is no text in UTF-8") from error
    if path == "__metadata__":
        raise ValueError(f"an array cannot be called {path}, as the file's own metadata is")
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(
            f"{path} is an array of {array.dtype}, but a checkpoint holds numbers: "
            "bool, integers or floats, of at most 64 bits"
        )
    return np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")


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
