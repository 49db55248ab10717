"""Reads the tensors of a file written by `torch.save` without PyTorch and without trusting the file.

Such a file is a ZIP archive (PyTorch 1.6 or later): `<prefix>/data.pkl` is a pickle that describes the
tensors, `<prefix>/data/<key>` holds their raw storages, and `<prefix>/byteorder`, where present, says how
the bytes are ordered. Layout: PyTorch, `torch/serialization.py`.
"""

import collections
import io
import pickle
import typing as tp
import zipfile

import numpy as np


class TorchArchiveError(ValueError):
    """The file is no archive of plain tensors; the message is one line for the user."""


class _StorageKind(tp.NamedTuple):
    """Stands for a class such as `torch.FloatStorage`; not callable, so no pickle can call it."""

    item: str  # numpy's name of the element type, without byte order


_STORAGE_KINDS = {"torch.FloatStorage": _StorageKind("f4"), "torch.LongStorage": _StorageKind("i8")}


def read_tensors(path: str) -> tp.Dict[str, np.ndarray]:
    """Return the tensors of a file that `torch.save(module.state_dict(), path)` wrote, by name.

    They are contiguous arrays in native byte order.

    Raises:
        TorchArchiveError: the file is damaged, is no state dict, or names anything but tensors of
            float32 and int64. Nothing that the file names is imported or executed.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _check_state(_Archive(archive).load_state())
    except zipfile.BadZipFile as error:
        hint = "download it again, or save it with PyTorch 1.6 or later"
        raise TorchArchiveError("{}: not an archive of torch.save ({}); {}".format(path, error, hint)) from None
    except TorchArchiveError as error:
        raise TorchArchiveError("{}: {}".format(path, error)) from None


def _check_state(state: tp.Any) -> tp.Dict[str, np.ndarray]:
    if not isinstance(state, dict):
        raise TorchArchiveError("holds a {}, expected a state dict".format(type(state).__name__))
    for name, value in dict.items(state):
        if not isinstance(name, str) or not isinstance(value, np.ndarray):
            raise TorchArchiveError("entry {!r} is not a tensor; save the state dict alone".format(name))
    return dict(dict.items(state))


class _Archive(pickle.Unpickler):
    """One open archive: knows the few names that a state dict needs and refuses every other one by its name."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._storages: tp.Dict[str, np.ndarray] = {}
        descriptions = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(descriptions) != 1:
            raise TorchArchiveError("expected one data.pkl inside, found {}".format(len(descriptions)))
        self._prefix = descriptions[0][: -len("data.pkl")]
        self._order = self._read_order()
        super().__init__(io.BytesIO(archive.read(descriptions[0])))

    def load_state(self) -> tp.Any:
        """Return the object that `data.pkl` describes, with arrays in place of tensors."""
        try:
            return self.load()
        except (TorchArchiveError, zipfile.BadZipFile):
            raise
        # Opcodes of a damaged or hostile pickle can fail in any way; whichever it is, the file is at fault.
        except Exception as error:
            raise TorchArchiveError("data.pkl is damaged ({})".format(error)) from None

    def find_class(self, module: str, name: str) -> tp.Any:
        """Return what stands for `module.name`; the place where a pickle would import code."""
        full_name = "{}.{}".format(module, name)
        if full_name == "collections.OrderedDict":
            return collections.OrderedDict
        if full_name == "torch._utils._rebuild_tensor_v2":
            return _rebuild_tensor
        if full_name in _STORAGE_KINDS:
            return _STORAGE_KINDS[full_name]
        raise TorchArchiveError("refused to unpickle {}: not needed by a state dict".format(full_name))

    def persistent_load(self, pid: tp.Any) -> np.ndarray:
        """Return the storage behind `("storage", kind, key, location, size)`; the location is ignored."""
        if not isinstance(pid, tuple) or len(pid) != 5 or pid[0] != "storage":
            raise TorchArchiveError("unknown persistent id {!r}".format(pid))
        _, kind, key, _, size = pid
        if not isinstance(kind, _StorageKind) or not isinstance(key, str) or not isinstance(size, int):
            raise TorchArchiveError("unknown persistent id {!r}".format(pid))
        if key not in self._storages:  # several tensors may share it
            self._storages[key] = self._read_storage(kind, key, size)
        return self._storages[key]

    def _read_storage(self, kind: _StorageKind, key: str, size: int) -> np.ndarray:
        try:
            data = self._archive.read("{}data/{}".format(self._prefix, key))
        except KeyError:
            raise TorchArchiveError("storage {!r} is missing".format(key)) from None
        dtype = np.dtype(self._order + kind.item)
        if len(data) != size * dtype.itemsize:
            raise TorchArchiveError("storage {!r} has {} bytes for {} elements".format(key, len(data), size))
        return np.frombuffer(data, dtype)

    def _read_order(self) -> str:
        name = self._prefix + "byteorder"
        if name not in self._archive.namelist():
            return "<"
        order = self._archive.read(name).decode("ascii", "replace")
        if order not in ("little", "big"):
            raise TorchArchiveError("unknown byte order {!r}".format(order))
        return "<" if order == "little" else ">"


def _rebuild_tensor(
    storage: np.ndarray, offset: int, shape: tp.Tuple[int, ...], strides: tp.Tuple[int, ...], *_gradients: tp.Any
) -> np.ndarray:
    """Return the tensor that `torch._utils._rebuild_tensor_v2` describes, read-only where it needs no copy.

    Raises:
        TorchArchiveError: the view leaves its storage. Checked here because `as_strided` would then
            read memory that is not the file's.
    """
    numbers = (offset,) + tuple(shape) + tuple(strides)
    if len(shape) != len(strides) or any(not isinstance(number, int) or number < 0 for number in numbers):
        raise TorchArchiveError("tensor with shape {} and strides {} is malformed".format(shape, strides))
    native = storage.dtype.newbyteorder("=")
    if 0 in shape:
        return np.zeros(shape, native)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides))
    if last >= len(storage):
        raise TorchArchiveError("tensor with shape {} leaves its storage of {}".format(shape, len(storage)))
    steps = tuple(stride * storage.itemsize for stride in strides)
    view = np.lib.stride_tricks.as_strided(storage[offset:], shape, steps, writeable=False)
    return view.astype(native, order="C", copy=False)
