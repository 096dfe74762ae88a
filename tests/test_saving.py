"""Checkpoints come back as they went in, or not at all."""

import json
import os
import re
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinyseq as ts
from tinyseq import nn, saving
from tinyseq.errors import DtypeError
from tinyseq.nn import interop
from tinyseq.saving import CheckpointError
from tinyseq.viz import saved

fcntl = pytest.importorskip("fcntl")  # not on Windows

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


# -- what save writes, load accepts; what load gets, it names --------------------------------------


def nested(depth: int) -> dict:
    tree: dict = {}
    for _ in range(depth):
        tree = {"a": tree}
    return tree


def in_a_circle() -> dict:
    tree: dict = {"a": 1}
    tree["b"] = [tree]
    return tree


REFUSED = {
    "a list": [1, 2],
    "a number": 3,
    "nothing": None,
    "nested too deep": nested(900),
    "a circle": in_a_circle(),
    "digits": {"a": 10**5000},
    "half of a pair": {"a\ud800": np.zeros(2)},
    "the file's own name": {"__metadata__": np.zeros(2)},
    "wide floats": {"a": np.zeros(2, np.longdouble)},
    "masked": {"a": np.ma.masked_array([1.0, 2.0], [True, False])},
    "records": {"a": np.zeros(2, [("x", float)])},
    "complex": {"a": 1j},
    "a set": {"a": {1}},
    "bytes": {"a": b"x"},
}


@pytest.mark.parametrize("tree", REFUSED.values(), ids=REFUSED.keys())
def test_what_load_would_refuse_is_refused_before_the_file_is_touched(tmp_path, tree):
    path = tmp_path / "c.safetensors"
    saving.save(path, TREE)
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError)):
        saving.save(path, tree)
    assert path.read_bytes() == before
    assert files(tmp_path) == ["c.safetensors"]


def test_a_header_that_has_no_room_is_refused(tmp_path, monkeypatch):
    def too_large(*args: object, **kwargs: object) -> bytes:
        raise safetensors.SafetensorError("header too large")  # above 100 MB

    monkeypatch.setattr(safetensors.numpy, "save", too_large)
    with pytest.raises(ValueError, match=r"have room for 100 MB, .* lists of numbers as arrays"):
        saving.save(tmp_path / "c.safetensors", TREE)


@given(st.integers(0, 99))
def test_as_deep_as_may_be_saved_can_be_loaded(tmp_path_factory, depth):
    path = tmp_path_factory.mktemp("c") / "c.safetensors"
    tree = nested(depth)
    saving.save(path, tree)
    assert saving.load(path) == tree


def test_arrays_of_alike_paths_stay_apart(tmp_path):
    path = tmp_path / "c.safetensors"
    tree = {"": {"a": np.zeros(2), "": {"": np.ones(1)}}, "a": np.ones(3), "0": [np.zeros(1)]}
    saving.save(path, tree)
    assert same(tree, saving.load(path))


def written(path: Path, entries: dict, data: bytes, tree: str, crc: int | None = None) -> None:
    """A file with this header, whole and with the right checksum unless another one is given."""
    crc = zlib.crc32(tree.encode()) if crc is None else crc
    metadata = {"tinyseq": "1", "tree": tree, "crc32": str(crc)}
    header = json.dumps({"__metadata__": metadata, **entries}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


FOREIGN = {
    "bfloat16": ({"a": entry("BF16", [2], 0, 4)}, bytes(4), "{}"),
    "float8": ({"a": entry("F8_E4M3", [2], 0, 2)}, bytes(2), "{}"),
    "no such type": ({"a": entry("F99", [2], 0, 8)}, bytes(8), "{}"),
    "overlapping": ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, bytes(12), "{}"),
    "beyond the end": ({"a": entry("F32", [2], 0, 8)}, bytes(4), "{}"),
    "huge": ({"a": entry("F32", [2**62, 4], 0, 8)}, bytes(8), "{}"),
    "huge but for a 0": ({"a": entry("F32", [2**62, 0, 2**62], 0, 0)}, b"", "{}"),
    "negative": ({"a": entry("F32", [-2], 0, 8)}, bytes(8), "{}"),
    "deep lists": ({}, b"", "[" * 900 + "]" * 900),
    "deep objects": ({}, b"", '{"a":' * 900 + "1" + "}" * 900),
    "deeper": ({}, b"", "[" * 100_000 + "]" * 100_000),
    "digits": ({}, b"", '{"a": ' + "9" * 5000 + "}"),
    "no array": ({}, b"", '{"a": "array:a"}'),
    "no JSON": ({}, b"", "\x00"),
}


@pytest.mark.parametrize("contents", FOREIGN.values(), ids=FOREIGN.keys())
def test_any_foreign_file_is_named(tmp_path, contents):
    path = tmp_path / "c.safetensors"
    written(path, *contents)
    with pytest.raises(CheckpointError, match=r"c\.safetensors (is|holds) "):
        saving.load(path)
    path.write_bytes(struct.pack("<Q", 1 << 62) + path.read_bytes()[8:])
    with pytest.raises(CheckpointError, match=r"c\.safetensors is damaged"):
        saving.load(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=5,
)


@given(st.data())
def test_a_file_with_any_of_its_parts_replaced_is_loaded_or_named(tmp_path_factory, data):
    """Whole files, of the right checksum even, by somebody else: flipped bits are a test above."""
    path = tmp_path_factory.mktemp("c") / "c.safetensors"
    saving.save(path, TREE)
    whole = path.read_bytes()
    length = struct.unpack("<Q", whole[:8])[0]
    header = json.loads(whole[8 : 8 + length])
    place = header
    while isinstance(place, dict) and place:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or data.draw(st.booleans()):
            place[key] = data.draw(JSON | st.integers() | st.text())
            break
        place = place[key]
    changed = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(changed)) + changed + whole[8 + length :])
    model = nn.Linear(4, 3)
    for read in (saving.load, lambda p: interop.load_torch(model, p), saved.language_model):
        assert re.search(
            r"c\.safetensors|does not (fit Linear|hold floats)|no array can have", said(read, path)
        )


def said(read: Callable[[Path], object], path: Path) -> str:
    try:
        read(path)
    except (ValueError, DtypeError) as error:
        return str(error)
    return f"{path} was read"


# -- files of killed runs --------------------------------------------------------------------------

WRITER = """
import sys, os, time, pathlib
from tinyseq import saving
path = pathlib.Path(sys.argv[1])
def stall(fd):
    print("writing", flush=True)
    time.sleep(60)
os.fsync = stall
saving.save(path, {"step": 1})
"""


def writer(path: Path) -> subprocess.Popen:
    """A process in the midst of writing."""
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    return process


def test_what_killed_runs_left_is_removed_but_not_what_others_write(tmp_path):
    path = tmp_path / "last.safetensors"
    others = [".last.safetensors.mine", ".last.safetensors.0123456g", ".best.safetensors.01234567"]
    for name in others:
        (tmp_path / name).write_text("not a leftover of this file")
    killed, running = writer(path), writer(path)
    try:
        assert len(files(tmp_path)) == 3 + 2
        killed.kill()
        killed.wait()
        saving.save(path, TREE)
        left = set(files(tmp_path)) - {*others, "last.safetensors"}
        assert len(left) == 1  # the one that is being written
        assert same(TREE, saving.load(path))
    finally:
        for process in (killed, running):
            process.kill()
            process.wait()
            process.stdout.close()
    saving.write_atomically(path, b"anything")
    assert set(files(tmp_path)) == {*others, "last.safetensors"}


def test_many_that_write_one_file_at_once_do_not_take_each_others(tmp_path):
    path = tmp_path / "c"
    errors = []

    def write(i: int) -> None:
        try:
            for n in range(25):
                saving.write_atomically(path, f"{i}/{n:02d}".encode() * 100)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert files(tmp_path) == ["c"]
    assert len({path.read_bytes()[i : i + 4] for i in range(0, 100, 4)}) == 1


def test_a_file_that_is_taken_for_a_leftover_before_it_is_locked_is_made_again(
    tmp_path, monkeypatch
):
    path = tmp_path / "c"
    lock, taken = fcntl.flock, []

    def late(file, how):
        if not taken:
            taken.append(file.name)
            os.unlink(file.name)
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    saving.write_atomically(path, b"whole")
    assert path.read_bytes() == b"whole"
    assert len(taken) == 1
    assert files(tmp_path) == ["c"]


def test_a_file_that_can_neither_be_written_nor_removed_is_one_error(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fails)
    monkeypatch.setattr(os, "unlink", fails)
    with pytest.raises(OSError, match=r"cannot write .*c: No space left.*has room"):
        saving.write_atomically(tmp_path / "c", b"whole")


@pytest.mark.parametrize("sign", [1, -1])
def test_a_whole_number_too_long_to_be_read_is_not_written(tmp_path, sign):
    path, most = tmp_path / "c.safetensors", 10**saving._DIGITS
    saving.save(path, {"n": sign * (most - 1)})
    with pytest.raises(ValueError, match=r"'?n'? is a whole number of more than [\d,]+ digits"):
        saving.save(path, {"n": sign * most})
    assert saving.load(path)["n"] == sign * (most - 1)
