"""Reads weights and nodes out of an ONNX file, without the package ``onnx``.

The file is a protocol buffer (onnx/onnx.proto): messages of numbered fields, of which those that weights need are read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_TYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 10: "<f2", 11: "<f8"}
"""NumPy's types by those of ``TensorProto.DataType``."""

Field = tuple[int, int | memoryview]


@dataclass(frozen=True, kw_only=True)
class OnnxNode:
    """One operation.

    Attributes:
        kind: e.g. ``MatMulInteger``.
        name: of the node.
        inputs: names of what it takes.
    """

    kind: str
    name: str
    inputs: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class OnnxGraph:
    """The operations of a graph, and its constants (initializers) by name."""

    nodes: Sequence[OnnxNode]
    values: Mapping[str, NDArray[Any]]


def read_graph(path: Path) -> OnnxGraph:
    """Read the graph of an ONNX file.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it is no such file.
    """
    try:
        graph = next(value for number, value in _fields(memoryview(path.read_bytes())) if number == 7)
        parts = [(number, value) for number, value in _fields(_message(graph))]
        nodes = [_node(_message(value)) for number, value in parts if number == 1]
        values = dict(_tensor(_message(value)) for number, value in parts if number == 5)
    except (StopIteration, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"{path.name} is no ONNX file ({type(error).__name__})") from None
    return OnnxGraph(nodes=nodes, values=values)


def _node(data: memoryview) -> OnnxNode:
    inputs, name, kind = [], "", ""
    for number, value in _fields(data):
        if number == 1:
            inputs.append(_text(value))
        elif number == 3:
            name = _text(value)
        elif number == 4:
            kind = _text(value)
    return OnnxNode(kind=kind, name=name, inputs=inputs)


def _tensor(data: memoryview) -> tuple[str, NDArray[Any]]:
    """Return name and value of a ``TensorProto``; its numbers are raw bytes, packed floats or packed integers."""
    shape: list[int] = []
    name, kind = "", 1
    raw, floats, integers = memoryview(b""), memoryview(b""), memoryview(b"")
    for number, value in _fields(data):
        if number == 1:
            shape += [value] if isinstance(value, int) else list(_packed(value))
        elif number == 2 and isinstance(value, int):
            kind = value
        elif number == 4:
            floats = _message(value)
        elif number == 5:
            integers = memoryview(bytes([value])) if isinstance(value, int) else value
        elif number == 8:
            name = _text(value)
        elif number == 9:
            raw = _message(value)
    if kind not in _TYPES:
        return name, np.zeros(0)
    if len(integers):
        found = np.array([n - (1 << 64) if n >> 63 else n for n in _packed(integers)]).astype(_TYPES[kind])
    else:
        found = np.frombuffer(floats if len(floats) else raw, _TYPES[kind])
    return name, found.reshape(shape)


def _fields(data: memoryview) -> Iterator[Field]:
    """Go through the fields of a message: number and value, an integer or the bytes."""
    place = 0
    while place < len(data):
        key, place = _varint(data, place)
        match key & 7:
            case 0:
                value, place = _varint(data, place)
                yield key >> 3, value
                continue
            case 1:
                size = 8
            case 2:
                size, place = _varint(data, place)
            case 5:
                size = 4
            case _:
                raise ValueError("a field of unknown kind")
        yield key >> 3, data[place : place + size]
        place += size


def _packed(data: memoryview) -> Iterator[int]:
    place = 0
    while place < len(data):
        value, place = _varint(data, place)
        yield value


def _varint(data: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message should be")
    return value


def _text(value: int | memoryview) -> str:
    return bytes(_message(value)).decode()
