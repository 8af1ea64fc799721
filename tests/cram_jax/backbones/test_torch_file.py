"""Torch files without torch: written here by hand, byte for byte as torch does."""

import collections
import io
import pickle
import struct
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.backbones.torch_file import DTYPES, LEGACY_MAGIC, read_torch_file
from cram_jax.backbones.weight_files import read_state_dict


class Global:
    """A name that the pickle is to look up: `torch.FloatStorage`."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Storage:
    def __init__(self, key, array, kind):
        self.key, self.array, self.kind = key, array, kind


class Call:
    """What unpickles by a call of a named function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Writer(pickle._Pickler):
    """Writes globals by name alone, and storages as persistent ids."""

    def __init__(self, file, protocol=2):
        super().__init__(file, protocol)
        self.storages = {}

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        self.storages[obj.key] = obj
        kind = Global("torch", obj.kind)
        return ("storage", kind, obj.key, "cpu", obj.array.size)

    def save(self, obj, save_persistent_id=True):
        # Python's own pickler has it, the type stubs do not know.
        write = self.write  # pyright: ignore
        if isinstance(obj, Global):
            write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)  # pyright: ignore


def tensor(storage, offset, shape, strides):
    hooks = collections.OrderedDict()
    function = Global("torch._utils", "_rebuild_tensor_v2")
    return Call(function, storage, offset, shape, strides, False, hooks)


def parameter(value):
    function = Global("torch._utils", "_rebuild_parameter")
    return Call(function, value, True, collections.OrderedDict())


def whole(key, array, kind="FloatStorage"):
    array = np.ascontiguousarray(array)
    strides = tuple(step // array.itemsize for step in array.strides)
    return tensor(Storage(key, array, kind), 0, array.shape, strides)


def write_archive(path, content, *, cut=0, extra=(), folder="archive"):
    file = io.BytesIO()
    writer = Writer(file)
    writer.dump(content)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{folder}/data.pkl", file.getvalue())
        archive.writestr(f"{folder}/version", "3\n")
        for name, data in extra:
            archive.writestr(f"{folder}/{name}", data)
        for key, storage in writer.storages.items():
            data = storage.array.tobytes()
            archive.writestr(f"{folder}/data/{key}", data[: len(data) - cut])


def write_legacy(path, content, magic=LEGACY_MAGIC):
    with path.open("wb") as file:
        pickle.dump(magic, file, 2)
        pickle.dump(1001, file, 2)
        pickle.dump({"protocol_version": 1001, "little_endian": True}, file, 2)
        writer = Writer(file)
        writer.dump(content)
        pickle.dump(sorted(writer.storages), file, 2)
        for key in sorted(writer.storages):
            array = writer.storages[key].array
            file.write(struct.pack("<q", array.size) + array.tobytes())


WRITERS = pytest.mark.parametrize("write", [write_archive, write_legacy])


@WRITERS
@pytest.mark.parametrize("kind", DTYPES)
def test_every_dtype_comes_back(tmp_path, write, kind):
    values = np.array([[0, 1, 2], [3, 1, 0]]).astype(DTYPES[kind])
    write(tmp_path / "a.pth", {"a": whole("0", values, kind)})
    found = read_torch_file(tmp_path / "a.pth")["a"]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@WRITERS
def test_views_share_a_storage_with_any_offset_and_strides(tmp_path, write):
    numbers = np.arange(24, dtype=np.float32)
    storage = Storage("7", numbers, "FloatStorage")
    content = collections.OrderedDict(
        turned=tensor(storage, 0, (6, 4), (1, 6)),
        part=tensor(storage, 5, (2, 3), (8, 2)),
        repeated=tensor(storage, 3, (2, 5), (0, 1)),
        scalar=tensor(storage, 23, (), ()),
        empty=tensor(storage, 0, (0, 4), (4, 1)),
        learned=parameter(tensor(storage, 0, (24,), (1,))),
    )
    write(tmp_path / "a.pt", content)
    found = read_state_dict(tmp_path / "a.pt")
    assert list(found) == list(content)
    np.testing.assert_array_equal(found["turned"], numbers.reshape(4, 6).T)
    np.testing.assert_array_equal(found["part"], [[5, 7, 9], [13, 15, 17]])
    np.testing.assert_array_equal(found["repeated"], [[3, 4, 5, 6, 7]] * 2)
    assert found["scalar"] == 23
    assert found["scalar"].shape == ()
    assert found["empty"].shape == (0, 4)
    np.testing.assert_array_equal(found["learned"], numbers)
    found["turned"][0, 0] = 99  # a copy, of nothing that others see
    assert found["learned"][0] == 0


@WRITERS
@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_weights_in_a_checkpoint_are_found(tmp_path, write, key):
    weights = {"w": whole("0", np.ones((2, 3), np.float32))}
    write(tmp_path / "last.ckpt", {"epoch": 3, key: weights, "lr": [0.1, None]})
    assert read_state_dict(tmp_path / "last.ckpt")["w"].shape == (2, 3)


RAN = []


def attack(*_):
    RAN.append(True)


@WRITERS
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("numpy.core.multiarray", "scalar"),
        ("argparse", "Namespace"),
        (__name__, "attack"),
    ],
)
def test_everything_else_is_refused_by_name_and_not_run(tmp_path, write, module, name):
    write(tmp_path / "a.pth", {"w": Call(Global(module, name), "1")})
    with pytest.raises(ValueError, match=rf"a\.pth.*{module}\.{name}.*not run"):
        read_state_dict(tmp_path / "a.pth")
    assert not RAN


BEYOND = [
    tensor(Storage("0", np.zeros(4, np.float32), "FloatStorage"), 1, (4,), (1,)),
    tensor(Storage("0", np.zeros(4, np.float32), "FloatStorage"), 0, (2, 2), (-1, 1)),
    tensor(Storage("0", np.zeros(4, np.float32), "FloatStorage"), -1, (2,), (1,)),
    tensor("nothing", 0, (2,), (1,)),
    parameter("nothing"),
]


@WRITERS
@pytest.mark.parametrize("broken", BEYOND)
def test_tensors_outside_of_their_storage_are_refused(tmp_path, write, broken):
    write(tmp_path / "a.pth", {"w": broken})
    with pytest.raises(ValueError, match=r"a\.pth.*cannot be read"):
        read_state_dict(tmp_path / "a.pth")


@WRITERS
def test_a_file_cut_anywhere_is_one_sentence(tmp_path, write):
    content = {
        "w": whole("0", np.ones((40, 3), np.float32)),
        "n": whole("1", np.ones(2)),
    }
    content["n"].arguments[0].kind = "DoubleStorage"
    write(tmp_path / "a.pth", content)
    data = (tmp_path / "a.pth").read_bytes()
    assert set(read_state_dict(tmp_path / "a.pth")) == {"w", "n"}
    for length in range(0, len(data) - 1, 37):
        (tmp_path / "cut.pth").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut\.pth") as caught:
            read_state_dict(tmp_path / "cut.pth")
        assert "\n" not in str(caught.value)


@WRITERS
def test_damaged_bytes_never_end_in_anything_else(tmp_path, write):
    write(tmp_path / "a.pth", {"w": whole("0", np.ones((5, 3), np.float32))})
    data = (tmp_path / "a.pth").read_bytes()
    rng = np.random.default_rng(0)
    sentences = []
    for _ in range(300):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            broken[place] = rng.integers(256)
        (tmp_path / "b.pth").write_bytes(broken)
        try:
            state = read_state_dict(tmp_path / "b.pth")
        except ValueError as error:
            sentences.append(str(error))
        else:
            assert all(isinstance(value, np.ndarray) for value in state.values())
    # Bytes between the records mean nothing, so that some files are read all the same.
    assert len(sentences) > 100
    assert all("b.pth" in sentence for sentence in sentences)


def test_other_archives_are_told_apart(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("readme.txt", "photographs")
    with pytest.raises(ValueError, match="not one that torch"):
        read_torch_file(tmp_path / "a.pth")
    weights = {"w": whole("0", np.ones(2, np.float32))}
    write_archive(tmp_path / "b.pth", weights, extra=[("constants.pkl", b"")])
    with pytest.raises(ValueError, match="TorchScript"):
        read_torch_file(tmp_path / "b.pth")
    write_archive(tmp_path / "c.pth", weights, extra=[("byteorder", b"big")])
    with pytest.raises(ValueError, match="big-endian"):
        read_torch_file(tmp_path / "c.pth")
    write_archive(tmp_path / "d.pth", weights, cut=1)
    with pytest.raises(ValueError, match="has 7 bytes"):
        read_torch_file(tmp_path / "d.pth")
    write_legacy(tmp_path / "e.pth", weights, magic=5)
    with pytest.raises(ValueError, match="not one that torch"):
        read_torch_file(tmp_path / "e.pth")


@pytest.mark.parametrize("content", [[1, 2], {}, {"w": 3}, {1: 2}, "text"])
def test_what_is_no_state_dict_is_refused_with_what_it_is(tmp_path, content):
    write_archive(tmp_path / "a.bin", content)
    with pytest.raises(ValueError, match="not a flat state dict"):
        read_state_dict(tmp_path / "a.bin")


def contents_for_torch(torch):
    table = torch.arange(24.0).reshape(4, 6)
    return {
        "turned": table.T,
        "part": table[1:, ::2],
        "half": table.half(),
        "brain": table.bfloat16(),
        "whole": torch.tensor(3),
        "flags": table > 4,
        "learned": torch.nn.Parameter(table),
    }


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [True, False])
def test_the_same_as_torch_load(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    content = contents_for_torch(torch)
    path = tmp_path / "a.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    theirs = torch.load(path, weights_only=True)
    ours = read_state_dict(path)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        expected = value.detach().float().numpy()
        np.testing.assert_array_equal(ours[name].astype(np.float32), expected)
    assert ours["brain"].dtype == jnp.bfloat16
