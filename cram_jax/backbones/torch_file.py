"""Arrays of a torch file, without torch and without running any code in it.

`torch.save` writes a pickle whose tensors refer to *storages*, flat arrays of bytes
beside it: in a zip archive (since torch 1.6), or behind it in the same file (the legacy
format, in which older weights still come). A pickle may call any function that it
names; the reader here knows the handful that a dict of tensors needs, and refuses every
other by name.
"""

from __future__ import annotations

import collections
import io
import pathlib
import pickle
import struct
import zipfile
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Lazy:
    """A storage whose bytes are not read yet (in the legacy format they come last)."""

    def __init__(self, dtype: np.dtype, count: int):
        self.dtype, self.count = dtype, count
        self.values: np.ndarray | None = None

    def fill(self, data: bytes) -> None:
        if len(data) != self.count * self.dtype.itemsize:
            raise ValueError(
                f"a storage of {self.count} {self.dtype} has {len(data)} bytes"
            )
        self.values = np.frombuffer(data, self.dtype)


class _Tensor:
    """A view of a storage."""

    def __init__(self, storage: Any, offset: int, shape: Any, strides: Any):
        sizes = (offset, *shape, *strides)
        if not isinstance(storage, _Lazy) or len(shape) != len(strides):
            raise ValueError("a tensor that is no view of a storage")
        if not all(isinstance(size, int) and size >= 0 for size in sizes):
            raise ValueError(f"a tensor of shape {shape} and strides {strides}")
        self.storage, self.offset = storage, offset
        self.shape, self.strides = tuple(shape), tuple(strides)

    def array(self) -> np.ndarray:
        storage = self.storage
        steps = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((n - 1) * step for n, step in steps)
        if 0 in self.shape:
            return np.zeros(self.shape, storage.dtype)
        if storage.values is None or last >= storage.values.size:
            raise ValueError("a tensor reaches beyond its storage")
        width = storage.dtype.itemsize
        view = np.lib.stride_tricks.as_strided(
            storage.values[self.offset :],
            self.shape,
            [step * width for step in self.strides],
        )
        return np.array(view)


def _rebuild_tensor(storage, offset, shape, strides, *_) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(data, *_) -> _Tensor:
    if not isinstance(data, _Tensor):
        raise ValueError("a parameter that is no tensor")
    return data


_KNOWN = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, storages: dict[str, _Lazy]):
        super().__init__(file, encoding="utf-8")
        self._storages = storages

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module in ("torch", "torch.storage") and name in DTYPES:
            return DTYPES[name]
        raise ValueError(
            f"it holds {module}.{name}, which is no tensor and is not run; save only"
            " the weights, `torch.save(model.state_dict(), path)`"
        )

    def persistent_load(self, pid: Any) -> _Lazy:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise ValueError(f"it refers to {pid!r}, which is no storage")
        _, dtype, key, _, count = pid[:5]
        if not isinstance(dtype, np.dtype) or not isinstance(count, int):
            raise ValueError(f"it refers to {pid!r}, which is no storage")
        if len(pid) > 5 and pid[5] is not None:
            raise ValueError("it holds views of storages, which only torch 0.3 wrote")
        return self._storages.setdefault(str(key), _Lazy(dtype, count))


def read_torch_file(path: str | pathlib.Path) -> Any:
    """What a file of `torch.save` holds, its tensors as numpy arrays.

    Args:
      path: the file's place; in the zip format or the legacy one.

    Returns:
      Dicts, lists, numbers and strings as they are in the file.

    Raises:
      ValueError: for a file of another kind, a damaged one, and one that holds more
        than tensors, by the name of what it holds.
    """
    path = pathlib.Path(path)
    try:
        if zipfile.is_zipfile(path):
            found = _read_archive(path)
        else:
            with path.open("rb") as file:
                found = _read_legacy(file)
        return _arrays(found)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error}.") from error
    except Exception as error:  # a damaged pickle or archive may raise anything
        raise ValueError(
            f"{str(path)!r} cannot be read as a torch file; it is damaged or cut short"
            f" ({type(error).__name__}: {error})."
        ) from error


def _read_archive(path: pathlib.Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        pickles = [name for name in names if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError("it is a zip archive, but not one that torch.save wrote")
        folder = pickles[0].removesuffix("data.pkl")
        order = folder + "byteorder"
        if order in names and archive.read(order).strip() != b"little":
            raise ValueError("its numbers are big-endian")
        if folder + "constants.pkl" in names:
            raise ValueError(
                "it is a TorchScript program, not weights; save"
                " `torch.jit.load(path).state_dict()`"
            )
        storages: dict[str, _Lazy] = {}
        found = _Unpickler(io.BytesIO(archive.read(pickles[0])), storages).load()
        for key, storage in storages.items():
            storage.fill(archive.read(f"{folder}data/{key}"))
        return found


def _read_legacy(file: BinaryIO) -> Any:
    def load() -> Any:
        return _Unpickler(file, {}).load()

    if file.read(1) != b"\x80":
        raise ValueError("it is no file that torch.save wrote")
    file.seek(0)
    if load() != LEGACY_MAGIC:
        raise ValueError("it is a pickle, but not one that torch.save wrote")
    load()  # the version of the format
    if not load().get("little_endian", True):
        raise ValueError("its numbers are big-endian")
    storages: dict[str, _Lazy] = {}
    found = _Unpickler(file, storages).load()
    for key in load():
        storage = storages[str(key)]
        (count,) = struct.unpack("<q", file.read(8))
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} numbers, not {storage.count}")
        storage.fill(file.read(count * storage.dtype.itemsize))
    return found


def _arrays(found: Any) -> Any:
    if isinstance(found, _Tensor):
        return found.array()
    if isinstance(found, dict):
        return {key: _arrays(value) for key, value in found.items()}
    if isinstance(found, (list, tuple)):
        return [_arrays(value) for value in found]
    return found
