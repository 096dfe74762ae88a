"""Checkpoints come back as they went in, or not at all."""

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyseq as ts
from tinyseq import saving
from tinyseq.saving import CheckpointError

DTYPES = st.sampled_from(
    ["bool", "int8", "uint8", "int32", "int64", "float16", "float32", "float64", ">f4", ">i8"]
)
ARRAYS = DTYPES.flatmap(
    lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
)
KEYS = st.text(st.characters(codec="utf-8", exclude_characters="/"), max_size=5)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"), max_size=5)
    | ARRAYS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
TREES = st.dictionaries(KEYS, VALUES, max_size=4)

TREE = {
    "model": {"head.weight": np.arange(12, dtype=np.float32).reshape(3, 4), "b": np.zeros(3)},
    "state": [[np.ones((2, 3), np.float32)], []],
    "step": 7,
    "settings": {"cell": "lstm", "lr": 2e-3, "best": None},
}


def same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        equal = np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        return a.dtype.newbyteorder("=") == b.dtype and a.shape == b.shape and equal
    return type(a) is type(b) and a == b


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


@given(TREES)
def test_what_is_saved_comes_back(tmp_path_factory, tree):
    path = tmp_path_factory.mktemp("c") / "c.safetensors"
    saving.save(path, tree)
    assert same(tree, saving.load(path))


def test_strided_arrays_and_numpy_numbers_and_tuples(tmp_path):
    path = tmp_path / "c.safetensors"
    array = np.arange(24.0).reshape(4, 6)
    saving.save(path, {"t": array.T[::2], "n": np.float32(0.5), "i": np.int64(3), "p": (1, 2)})
    loaded = saving.load(path)
    np.testing.assert_array_equal(loaded["t"], array.T[::2])
    assert (loaded["n"], loaded["i"], loaded["p"]) == (0.5, 3, [1, 2])


def test_tensors_come_back_as_arrays(tmp_path):
    path = tmp_path / "c.safetensors"
    saving.save(path, {"state": ((ts.tensor([1.0, 2.0]), ts.tensor([3.0])),)})
    loaded = saving.load(path)
    assert same({"state": [[np.float32([1, 2]), np.float32([3])]]}, loaded)


def test_any_safetensors_reader_finds_the_arrays_under_their_paths(tmp_path):
    saving.save(tmp_path / "c.safetensors", TREE)
    arrays = safetensors.numpy.load_file(tmp_path / "c.safetensors")
    assert set(arrays) == {"model/head.weight", "model/b", "state/0/0"}
    np.testing.assert_array_equal(arrays["model/head.weight"], TREE["model"]["head.weight"])


@pytest.mark.parametrize(
    ("tree", "error", "words"),
    [
        ({"a": {"b": object()}}, TypeError, "a/b is a object"),
        ({"a": np.array(["x"])}, TypeError, "a is an array of <U1"),
        ({"a": [np.array([1j])]}, TypeError, "a/0 is an array of complex128"),
        ({"a/b": 1}, ValueError, "'a/b'"),
        ({"a": {3: 1}}, ValueError, "strings without '/', not 3"),
        ({"a": "array:b"}, ValueError, "starts with 'array:'"),
    ],
)
def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path, tree, error, words):
    with pytest.raises(error, match=words):
        saving.save(tmp_path / "c.safetensors", tree)
    assert files(tmp_path) == []


@given(st.data())
def test_a_damaged_file_never_gives_other_contents(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("c") / "c.safetensors"
    saving.save(path, TREE)
    whole = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "cut short"):
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(CheckpointError, match=r"c\.safetensors is damaged"):
            saving.load(path)
        return
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole)
    try:
        loaded = saving.load(path)
    except CheckpointError:
        return
    assert same(TREE, loaded)  # the bit was in the padding between header and data


def test_every_changed_byte_of_an_array_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    saving.save(path, TREE)
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    with pytest.raises(CheckpointError, match="do not match its checksum"):
        saving.load(path)


def test_foreign_files(tmp_path):
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(2)}, other)
    with pytest.raises(CheckpointError, match="not a checkpoint of tinyseq"):
        saving.load(other)
    safetensors.numpy.save_file({"a": np.zeros(2)}, other, metadata={"tinyseq": "99"})
    with pytest.raises(CheckpointError, match="format 99, and this tinyseq reads 1"):
        saving.load(other)
    # a type that NumPy lacks, as in many a model on the net
    entry = {"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}
    header = json.dumps(entry).encode()
    other.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    with pytest.raises(CheckpointError, match="not a checkpoint of tinyseq"):
        saving.load(other)
    other.write_text("To be, or not to be, that is the question. " * 9)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        saving.load(other)
    with pytest.raises(OSError, match=r"cannot read .*directory"):
        saving.load(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"there is no checkpoint .*none\.safetensors"):
        saving.load(tmp_path / "none.safetensors")


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ("{", "no checkpoint that tinyseq wrote"),
        ('{"b": "array:b"}', "wrote: 'b'"),
        ("[]", "a list"),
    ],
)
def test_a_whole_file_that_something_else_wrote(tmp_path, header, words):
    arrays = {"a": np.zeros(2)}
    crc = zlib.crc32(b"a<f8(2,)" + bytes(16), zlib.crc32(header.encode()))
    metadata = {"tinyseq": "1", "tree": header, "crc32": str(crc)}
    safetensors.numpy.save_file(arrays, tmp_path / "c.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=rf"c\.safetensors .*{words}"):
        saving.load(tmp_path / "c.safetensors")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in ("missing", "file"):
        with pytest.raises(OSError, match=rf"cannot write .*{folder}/c\.safetensors: .*Choose"):
            saving.save(tmp_path / folder / "c.safetensors", TREE)
    assert files(tmp_path) == ["file"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call, failure):
    path = tmp_path / "c.safetensors"
    saving.save(path, TREE)

    def fail(*args: object) -> None:
        raise failure

    monkeypatch.setattr(os, call, fail)
    expected = "No space left" if isinstance(failure, OSError) else None
    with pytest.raises(type(failure), match=expected):
        saving.save(path, {"step": 8})
    monkeypatch.undo()
    assert files(tmp_path) == ["c.safetensors"]
    assert same(TREE, saving.load(path))
