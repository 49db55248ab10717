"""The reader of torch files: what it returns, and everything that it refuses."""

import collections
import io
import os
import pathlib
import pickle
import sys
import types
import typing as tp
import zipfile

import numpy as np
import pytest

from worker.networks.torch_archive import TorchArchiveError, read_tensors


class FloatStorage:
    """Pickled under the name torch.FloatStorage."""


class LongStorage:
    """Pickled under the name torch.LongStorage."""


class HalfStorage:
    """Pickled under the name torch.HalfStorage, which the reader does not know."""


def _rebuild_tensor_v2(*arguments: tp.Any) -> None:
    """Pickled under the name torch._utils._rebuild_tensor_v2."""


class Reference(tp.NamedTuple):
    """A storage, to be pickled as a persistent id."""

    kind: type
    key: str
    size: int


class Tensor:
    """A tensor, to be pickled as torch does."""

    def __init__(
        self, storage: Reference, shape: tp.Tuple[int, ...], strides: tp.Tuple[int, ...], offset: int = 0
    ) -> None:
        self.arguments: tp.Tuple[tp.Any, ...] = (
            storage,
            offset,
            shape,
            strides,
            False,
            collections.OrderedDict(),
        )

    def __reduce__(self) -> tp.Tuple[tp.Any, ...]:
        return _rebuild_tensor_v2, self.arguments


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: tp.Any) -> tp.Any:
        if isinstance(value, Reference):
            return ("storage", value.kind, value.key, "cpu", value.size)
        return None


@pytest.fixture(autouse=True)
def torch_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the pickler find the stand-ins under the names that torch uses."""
    torch = types.ModuleType("torch")
    utils = types.ModuleType("torch._utils")
    for kind in (FloatStorage, LongStorage, HalfStorage):
        monkeypatch.setattr(kind, "__module__", "torch")
        setattr(torch, kind.__name__, kind)
    monkeypatch.setattr(_rebuild_tensor_v2, "__module__", "torch._utils")
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def _write(path: pathlib.Path, state: tp.Any, storages: tp.Mapping[str, bytes], order: str = "") -> str:
    description = io.BytesIO()
    _Pickler(description, protocol=2).dump(state)
    return _write_raw(path, description.getvalue(), storages, order)


def _write_raw(path: pathlib.Path, description: bytes, storages: tp.Mapping[str, bytes], order: str = "") -> str:
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr("weights/data.pkl", description)
        if order:
            archive.writestr("weights/byteorder", order)
        for key, data in storages.items():
            archive.writestr("weights/data/" + key, data)
    return str(path)


FLOATS = np.arange(12, dtype=np.float32) / 8


def _describe(shape: tp.Tuple[int, ...], strides: tp.Tuple[int, ...], offset: int = 0) -> tp.Any:
    tensor = Tensor(Reference(FloatStorage, "0", 12), shape, strides, offset)
    return collections.OrderedDict([("weight", tensor)])


@pytest.mark.parametrize(
    "shape, strides, offset, expected",
    [
        ((3, 4), (4, 1), 0, FLOATS.reshape(3, 4)),
        ((4, 3), (1, 4), 0, FLOATS.reshape(3, 4).T),
        ((2, 2), (4, 1), 5, FLOATS.reshape(3, 4)[1:, 1:3]),
        ((), (), 11, FLOATS[11]),
        ((0, 5), (5, 1), 0, np.zeros((0, 5), np.float32)),
    ],
)
def test_views_of_a_storage(
    tmp_path: pathlib.Path,
    shape: tp.Tuple[int, ...],
    strides: tp.Tuple[int, ...],
    offset: int,
    expected: np.ndarray,
) -> None:
    path = _write(tmp_path / "w.pth", _describe(shape, strides, offset), {"0": FLOATS.tobytes()})
    weight = read_tensors(path)["weight"]
    assert weight.dtype == np.float32
    assert weight.shape == shape
    assert weight.flags.c_contiguous
    np.testing.assert_array_equal(weight, expected)


def test_two_tensors_share_a_storage_and_integers_are_read(tmp_path: pathlib.Path) -> None:
    floats = Reference(FloatStorage, "0", 12)
    state = collections.OrderedDict(
        [
            ("a", Tensor(floats, (2,), (1,))),
            ("b", Tensor(floats, (2,), (1,), offset=10)),
            ("steps", Tensor(Reference(LongStorage, "1", 1), (), ())),
        ]
    )
    state._metadata = collections.OrderedDict(version=1)  # type: ignore[attr-defined]  # torch adds this
    path = _write(tmp_path / "w.pth", state, {"0": FLOATS.tobytes(), "1": np.int64(-7).tobytes()})
    tensors = read_tensors(path)
    assert tensors["a"].tolist() == [0, 0.125]
    assert tensors["b"].tolist() == [1.25, 1.375]
    assert tensors["steps"].dtype == np.int64
    assert int(tensors["steps"]) == -7


def test_big_endian_bytes_become_native(tmp_path: pathlib.Path) -> None:
    path = _write(tmp_path / "w.pth", _describe((12,), (1,)), {"0": FLOATS.astype(">f4").tobytes()}, order="big")
    weight = read_tensors(path)["weight"]
    assert weight.dtype.isnative
    np.testing.assert_array_equal(weight, FLOATS)


class _Evil:
    def __reduce__(self) -> tp.Tuple[tp.Any, ...]:
        return os.mkdir, ("made-by-pickle",)


@pytest.mark.parametrize(
    "value, name",
    [
        (_Evil(), "mkdir"),
        (np.float64, "numpy.float64"),
        (HalfStorage, "torch.HalfStorage"),
        (Tensor(Reference(HalfStorage, "0", 12), (12,), (1,)), "torch.HalfStorage"),
        (collections.deque, "collections.deque"),
    ],
)
def test_other_names_are_refused_by_name(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, value: tp.Any, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path / "w.pth", {"weight": value}, {"0": FLOATS.tobytes()})
    with pytest.raises(TorchArchiveError, match="refused to unpickle .*" + name):
        read_tensors(path)
    assert not (tmp_path / "made-by-pickle").exists()


@pytest.mark.parametrize(
    "shape, strides, offset",
    [
        ((13,), (1,), 0),
        ((12,), (1,), 1),
        ((2, 2), (11, 1), 0),
        ((2,), (-1,), 1),
        ((12,), (1, 1), 0),
        ((1,), (1,), -1),
    ],
)
def test_tensors_outside_their_storage_are_refused(
    tmp_path: pathlib.Path, shape: tp.Tuple[int, ...], strides: tp.Tuple[int, ...], offset: int
) -> None:
    path = _write(tmp_path / "w.pth", _describe(shape, strides, offset), {"0": FLOATS.tobytes()})
    with pytest.raises(TorchArchiveError, match="tensor with shape"):
        read_tensors(path)


@pytest.mark.parametrize(
    "state, storages, order, message",
    [
        (_describe((12,), (1,)), {}, "", "storage '0' is missing"),
        (_describe((12,), (1,)), {"0": b"1234"}, "", "4 bytes for 12 elements"),
        (_describe((12,), (1,)), {"0": FLOATS.tobytes()}, "middle", "byte order 'middle'"),
        ([1, 2], {}, "", "holds a list"),
        ({"epoch": 3}, {}, "", "entry 'epoch' is not a tensor"),
        ({"model": {"weight": 1.0}}, {}, "", "entry 'model' is not a tensor"),
    ],
)
def test_damaged_or_other_content(
    tmp_path: pathlib.Path, state: tp.Any, storages: tp.Mapping[str, bytes], order: str, message: str
) -> None:
    path = _write(tmp_path / "w.pth", state, storages, order)
    with pytest.raises(TorchArchiveError, match=message) as caught:
        read_tensors(path)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "description",
    [
        b"",
        b"\x80\x02",
        b"\x80\x02}q\x00",
        b"\x80\x02)R.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",
        b"\x80\x02Q.",
        b"junk",
    ],
)
def test_malformed_pickles(tmp_path: pathlib.Path, description: bytes) -> None:
    path = _write_raw(tmp_path / "w.pth", description, {})
    with pytest.raises(TorchArchiveError, match=r"data\.pkl is damaged"):
        read_tensors(path)


def test_persistent_ids_of_another_form_are_refused(tmp_path: pathlib.Path) -> None:
    path = _write_raw(tmp_path / "w.pth", b"\x80\x02K\x05Q.", {})
    with pytest.raises(TorchArchiveError, match="unknown persistent id 5"):
        read_tensors(path)


def test_a_file_that_is_no_archive(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(TorchArchiveError, match=r"not an archive of torch\.save"):
        read_tensors(str(path))


def test_an_archive_without_description(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(str(path), "w") as archive:
        archive.writestr("other.txt", "hello")
    with pytest.raises(TorchArchiveError, match=r"expected one data\.pkl inside, found 0"):
        read_tensors(str(path))
