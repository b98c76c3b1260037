"""Other projects' files are read for their tensors; the rest of them is not run and fills no memory."""

from __future__ import annotations

import io
import pathlib
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from pointrend.checkpoints import native
from pointrend.checkpoints.external import read_foreign
from pointrend.models.devices import peak_memory

ARRAYS = {
    "a.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "a.bias": np.array([1.5, -2.0]),
    "half": np.array([[1, 2]], dtype=np.float16),
    "count": np.array(80000, dtype=np.int64),
    "none": np.zeros((0, 3), dtype=np.float32),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "big-endian": np.arange(3, dtype=">f4"),
}


class Attack:
    """Unpickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def write(tmp_path, data, name="x.pkl"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


def assert_arrays(tensors):
    assert list(tensors) == list(ARRAYS)
    for name, array in ARRAYS.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert torch.equal(tensors[name], torch.from_numpy(np.ascontiguousarray(native).reshape(array.shape)))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_pickle_protocol_are_read(tmp_path, protocol):
    content = {
        "model": ARRAYS,
        "__author__": "somebody",
        "scale": np.float32(0.5),
        "matching_heuristics": True,
    }
    checkpoint = read_foreign(write(tmp_path, pickle.dumps(content, protocol)))
    assert_arrays(checkpoint.tensors)
    assert checkpoint.meta == {"__author__": "somebody", "scale": 0.5, "matching_heuristics": True}


def test_python_2_pickles_are_read(tmp_path):
    """Raw bytes in a `str`, as Caffe2's files of 2018 have them."""
    raw = np.arange(3, dtype="<f4").tobytes()
    data = (
        b"\x80\x02}U\x05blobs}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x03\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U\x0c" + raw + b"tbss."
    )
    assert read_foreign(write(tmp_path, data)).tensors["w"].tolist() == [0, 1, 2]


def test_a_bare_state_dict_and_module_prefixes_are_understood(tmp_path):
    content = OrderedDict((f"module.{name}", array) for name, array in ARRAYS.items())
    assert_arrays(read_foreign(write(tmp_path, pickle.dumps(content))).tensors)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("key", ["state_dict", "model", None])
def test_torch_files_of_both_serialisations_are_read(tmp_path, legacy, key):
    state = OrderedDict(w=torch.arange(6.0).view(2, 3), n=torch.tensor(3))
    content = {key: state, "meta": {"CLASSES": ("a", "b"), "iter": 80000}} if key else state
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    checkpoint = read_foreign(tmp_path / "x.pth")
    assert checkpoint.tensors["w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (checkpoint.meta == {"meta": {"CLASSES": ("a", "b"), "iter": 80000}}) == bool(key)


def test_numpy_values_in_the_metadata_are_skipped_over(tmp_path):
    content = {"state_dict": {"w": torch.ones(2)}, "meta": {"best": np.float64(0.5), "curve": np.arange(3)}}
    torch.save(content, tmp_path / "x.pth")
    checkpoint = read_foreign(tmp_path / "x.pth")
    assert checkpoint.tensors["w"].tolist() == [1, 1]


def attacks(marker):
    import os

    nested = Attack(getattr, Attack(__import__, "os"), "system")
    return {
        "os.system": Attack(os.system, f"touch {marker}"),
        "eval": Attack(eval, f"open({str(marker)!r}, 'w').close()"),
        "nested": Attack(map, nested, [f"touch {marker}"]),
        "deep": {"model": {"w": [[{"x": (Attack(os.system, f"touch {marker}"),)}]]}},
        "numpy": Attack(np.load, str(marker)),
        "memmap": Attack(np.memmap, str(marker), "uint8", "w+", 0, (10,)),
        "codecs": Attack(__import__("codecs").open, str(marker), "w"),
        "builtins": Attack(exec, f"open({str(marker)!r}, 'w')"),
    }


@pytest.mark.parametrize("kind", list(attacks("")))
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_runs_code_is_refused_and_runs_nothing(tmp_path, kind, protocol):
    marker = tmp_path / "executed"
    attack = attacks(marker)[kind]
    path = write(tmp_path, pickle.dumps({"model": ARRAYS, "x": attack}, protocol))
    with pytest.raises(ValueError, match="nothing in it was run") as error:
        read_foreign(path)
    assert "which is not allowed" in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize("kind", list(attacks("")))
@pytest.mark.parametrize("legacy", [False, True])
def test_a_torch_file_that_runs_code_is_refused_and_runs_nothing(tmp_path, kind, legacy):
    marker = tmp_path / "executed"
    content = {"state_dict": {"w": torch.ones(1)}, "x": attacks(marker)[kind]}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(ValueError, match="nothing in it was run") as error:
        read_foreign(tmp_path / "x.pth")
    assert "weights_only" not in str(error.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04ccollections\nOrderedDict\n}(U\x05__new__Nub.",  # BUILD on a function
        b"\x80\x02(ios\nsystem\n.",  # INST
        b"\x80\x02(cos\nsystem\nU\x02lso.",  # OBJ
        b"\x80\x02cbuiltins\nobject\n)\x81.",  # NEWOBJ
        b"\x80\x02}U\x01wc__builtin__\nbytes\n\x8a\x05\x00\xe4\x0bT\x02\x85Rs.",  # bytes(10 GB)
        b"\x80\x02U\x01aQ.",  # BINPERSID
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",  # STACK_GLOBAL
        b"\x80\x02]2" + b"a2" * 50 + b".",  # DUP
        b"cnumpy.core\n_multiarray_umath.arange\n.",  # an attribute of an attribute
    ],
)
def test_instructions_that_no_checkpoint_needs_are_refused(tmp_path, data):
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        read_foreign(write(tmp_path, data))


def array_program(shape, raw, dtype=b"f4"):
    """A pickle of one array that claims `shape`, with `raw` as its data."""
    numbers = b"".join(b"\x8a\x05" + struct.pack("<q", n)[:5] for n in shape)
    return (
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01("
        + numbers
        + b"tcnumpy\ndtype\nU\x02"
        + dtype
        + b"K\x00K\x01\x87R\x89B"
        + struct.pack("<i", len(raw))
        + raw
        + b"tbs."
    )


@pytest.mark.parametrize(
    "data",
    [
        array_program((2_500_000_000,), b"1234"),
        array_program((50_000, 50_000), b""),
        array_program((2**31, 2**31, 0), b"", b"O8"),
        b"\x80\x04}\x8c\x01w\x8e" + struct.pack("<Q", 10**10) + b"x" * 100,  # BINBYTES8 of 10 GB
        b"\x80\x04\x95" + struct.pack("<Q", 10**10) + b"}.",  # a frame of 10 GB
        b"\x80\x02}r\xff\xff\xff\x7f.",  # memo slot 2^31: an array of 17 GB
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n\x8a\x05\x00\xe4\x0bT\x02\x85U\x01btR.",
        b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b".",  # a number of 2 GB
    ],
)
def test_a_tiny_file_that_claims_gigabytes_is_refused_at_once(tmp_path, data):
    before = peak_memory()
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        read_foreign(write(tmp_path, data))
    assert peak_memory() - before < 2**28


def test_one_string_cannot_become_a_thousand_arrays(tmp_path):
    """The data is memoised once and used over and over: a decompression bomb in pickle."""
    raw = np.zeros(2**16, dtype=np.uint8).tobytes()
    content = {str(i): np.frombuffer(raw, np.uint8) for i in range(3)}
    good = pickle.dumps({"w": np.frombuffer(raw, np.uint8)}, 4)
    assert read_foreign(write(tmp_path, good)).tensors["w"].numel() == 2**16
    path = write(tmp_path, pickle.dumps(content, 4))
    assert len(read_foreign(path).tensors) == 3
    program = io.BytesIO()
    pickler = pickle.Pickler(program, 4)
    state = (1, (2**16,), np.dtype("u1"), False, raw)
    reconstruct = np.zeros(0).__reduce__()[:2]

    class Again:
        def __reduce__(self):
            return (*reconstruct, state)

    pickler.dump({str(i): Again() for i in range(1000)})
    assert program.tell() < 2**18
    with pytest.raises(ValueError, match="claim more bytes than it has"):
        read_foreign(write(tmp_path, program.getvalue()))


def test_a_torch_file_that_claims_gigabytes_is_refused(tmp_path):
    before = peak_memory()
    path = tmp_path / "x.pth"
    torch.save({"w": torch.ones(1).expand(50_000, 50_000)}, path)
    with pytest.raises(ValueError, match=r"w claims \(50000, 50000\)"):
        read_foreign(path)
    torch.save({"w": torch.ones(7)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"K\x07", b"J\xff\xff\xff\x7f"))
    with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
        read_foreign(path)
    assert peak_memory() - before < 2**28


def test_compressed_zip_entries_are_refused(tmp_path):
    torch.save({"w": torch.zeros(1000)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as old, zipfile.ZipFile(tmp_path / "y.pth", "w", 8) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(ValueError, match="compressed zip entries"):
        read_foreign(tmp_path / "y.pth")


@pytest.mark.parametrize("writer", ["pickle", "zip", "legacy"])
def test_truncated_files_are_refused_wherever_they_end(tmp_path, writer):
    path = tmp_path / "x"
    if writer == "pickle":
        path.write_bytes(pickle.dumps({"model": ARRAYS}, 4))
    else:
        torch.save({"w": torch.randn(100)}, path, _use_new_zipfile_serialization=writer == "zip")
    data = path.read_bytes()
    for end in range(0, len(data) - 1, max(1, len(data) // 23)):
        path.write_bytes(data[:end])
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            read_foreign(path)


def test_flipped_bits_of_a_zip_are_noticed(tmp_path):
    path = tmp_path / "x.pth"
    torch.save({"w": torch.randn(1000)}, path)
    good = path.read_bytes()
    for position in (len(good) // 2, 200, len(good) - 100):
        data = bytearray(good)
        data[position] ^= 8
        path.write_bytes(data)
        with pytest.raises(ValueError, match="cannot be read as a checkpoint"):
            read_foreign(path)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's word on a flipped version byte
@pytest.mark.parametrize("legacy", [False, True])
def test_flipped_bits_without_a_checksum_end_in_an_error_or_in_data(tmp_path, legacy):
    """Only a hash can tell a flipped weight; a flipped program must not do harm."""
    path = tmp_path / "x"
    if legacy:
        torch.save({"w": torch.randn(10)}, path, _use_new_zipfile_serialization=False)
    else:
        path.write_bytes(pickle.dumps({"model": ARRAYS}, 2))
    good = path.read_bytes()
    refused = 0
    for position in range(0, len(good), 3):
        data = bytearray(good)
        data[position] ^= 1 << (position % 8)
        path.write_bytes(data)
        try:
            assert all(isinstance(t, torch.Tensor) for t in read_foreign(path).tensors.values())
        except ValueError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"hello", "cannot be read"),
        (pickle.dumps([1, 2]), "expected a dictionary, got list"),
        (pickle.dumps({}), "no tensors"),
        (pickle.dumps({"model": {"w": "text"}}), "got str under 'w'"),
        (
            pickle.dumps({"module.w": np.zeros(1), "w": np.ones(1)}),
            "w is there twice, with and without the prefix",
        ),
        (pickle.dumps({"model": {"w": np.array(["text"])}}), "dtype 'U4' are not allowed"),
        (pickle.dumps({"model": {"w": np.array([{}])}}), "dtype 'O8' are not allowed"),
    ],
)
def test_other_contents_are_named(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_foreign(write(tmp_path, content))


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_foreign(tmp_path / "nowhere.pkl")
    with pytest.raises(ValueError, match="got a folder"):
        read_foreign(tmp_path)


@pytest.mark.parametrize("legacy", [False, True])
def test_an_object_of_another_class_is_named_in_one_line(tmp_path, legacy):
    content = {"model": {"w": torch.zeros(1)}, "output_dir": pathlib.PurePosixPath("/x")}
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        ValueError,
        match=r"x\.pth: cannot be read as a checkpoint: it holds an object of pathlib\.\S*PurePosixPath",
    ) as error:
        read_foreign(tmp_path / "x.pth")
    message = str(error.value)
    assert "\n" not in message
    assert "\x1b" not in message
    assert "weights_only" not in message
    assert "torch.save({" in message


@pytest.mark.parametrize(
    "prefix", ["module.", "model.", "_orig_mod.", "net.", "module._orig_mod.", "model.net."]
)
def test_prefixes_of_wrappers_are_taken_off(tmp_path, prefix):
    torch.save({f"{prefix}backbone.w": torch.ones(2)}, tmp_path / "x.pth")
    assert list(read_foreign(tmp_path / "x.pth").tensors) == ["backbone.w"]


def test_a_compiled_part_has_its_plain_name(tmp_path):
    torch.save({"backbone._orig_mod.w": torch.ones(2)}, tmp_path / "x.pth")
    assert list(read_foreign(tmp_path / "x.pth").tensors) == ["backbone.w"]


@pytest.mark.parametrize("key", ["model", "state_dict", "model_state_dict", "net"])
def test_the_usual_keys_of_state_dicts_are_understood(tmp_path, key):
    torch.save({key: {"w": torch.ones(2)}, "epoch": 3}, tmp_path / "x.pth")
    found = read_foreign(tmp_path / "x.pth")
    assert list(found.tensors) == ["w"]
    assert found.meta == {"epoch": 3}


def test_the_only_dictionary_of_tensors_is_the_state_dict_whatever_its_key(tmp_path):
    state = {"w": torch.ones(2)}
    for content in ({"weights": state}, {"ema": state, "epoch": 3}, {"model": {"state_dict": state}}):
        torch.save(content, tmp_path / "x.pth")
        assert list(read_foreign(tmp_path / "x.pth").tensors) == ["w"]
    torch.save({"student": state, "teacher": state}, tmp_path / "x.pth")
    with pytest.raises(
        ValueError, match="several dictionaries of tensors, student, teacher: save one of them"
    ):
        read_foreign(tmp_path / "x.pth")


def test_archives_that_are_not_torchs_state_dicts_are_called_by_their_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("weights.pth", b"1")
    with pytest.raises(ValueError, match=r"an archive of weights\.pth, not of torch: unpack it"):
        read_foreign(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
        for name in ("x/data.pkl", "x/constants.pkl", "x/code/__torch__.py"):
            archive.writestr(name, b"1")
    with pytest.raises(ValueError, match=r"TorchScript, a program: save the model's state_dict\(\)"):
        read_foreign(tmp_path / "x.pt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value):
    torch.save(
        {"good": torch.ones(2), "bad": torch.tensor([1.0, value]), "count": torch.tensor(3)},
        tmp_path / "x.pth",
    )
    with pytest.raises(ValueError, match=r"NaN or infinite: bad\. The training diverged"):
        read_foreign(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "a web page"),
        (b"<html>", "a web page"),
        (b"<!-- saved --><html>", "a web page"),
        (b"<Error><Code>AccessDenied</Code></Error>", "a web page"),
        (b'{"error": "Repository not found"}', "a text in JSON"),
        (b"\x1f\x8b\x08\0", r"a gzip archive \(unpack it\)"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
        (b"\x89PNG\r\n\x1a\n", "an image"),
    ],
)
@pytest.mark.parametrize("name", ["x.pkl", "x.pth", "x.safetensors"])
def test_what_a_download_often_gives_instead_is_called_by_its_name(tmp_path, content, message, name):
    path = write(tmp_path, content, name)
    for read in (read_foreign, native.load):
        with pytest.raises(ValueError, match=message):
            read(path)
