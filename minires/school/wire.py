"""Messages between the grader and the process that runs a solution: JSON, then raw arrays.

A message holds data, never code. Reading one makes numbers, text, arrays, tuples, lists and dicts;
the process that runs a solution may also make objects of minires from their attributes.
"""

from __future__ import annotations

import importlib
import json
import math
import struct
from collections.abc import Sequence
from operator import attrgetter
from typing import IO, Any

import numpy as np

LONGEST = 1 << 28  # bytes of a message
TOKEN = 16  # bytes in front of a message; an answer repeats the token of its request
SHOWN = 200  # characters of the repr of an object that cannot be sent
PLAIN = (bool, int, float, str)


class BadMessageError(Exception):
    """The bytes that were read are not a valid message."""


class Foreign:
    """An object that cannot be sent: the name of its type, and its repr."""

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        self.text = text

    def __repr__(self) -> str:
        return self.text


# ---------------------------------------------------------------------------------------- writing


class _Writer:
    """Turn values into JSON; arrays and objects get a number each and are written once."""

    def __init__(self, known: Sequence[Any]) -> None:
        self.things = list(known)
        self.numbers = {id(thing): i for i, thing in enumerate(known)}

    def number(self, thing: Any) -> int:
        if id(thing) not in self.numbers:
            self.numbers[id(thing)] = len(self.things)
            self.things.append(thing)
        return self.numbers[id(thing)]

    def value(self, v: Any) -> Any:
        if v is None or type(v) in PLAIN:
            return v if not isinstance(v, int) or abs(v) < 1 << 63 else _foreign(v)
        if _is_array(v) and v.dtype.kind in "biufc":
            return {"array": self.number(v), "scalar": isinstance(v, np.generic)}
        if isinstance(v, tuple | list):
            kind = "tuple" if isinstance(v, tuple) else "list"
            return {kind: [self.value(item) for item in v]}
        if isinstance(v, dict):
            return {"dict": [[self.value(key), self.value(item)] for key, item in v.items()]}
        if isinstance(v, complex):
            return {"complex": [v.real, v.imag]}
        if isinstance(v, PLAIN):  # a subclass, such as an enumeration
            return next(kind(v) for kind in PLAIN if isinstance(v, kind))
        if id(v) in self.numbers or _is_ours(v):
            return {"object": self.number(v)}
        return _foreign(v)

    def thing(self, thing: Any, buffers: list[bytes]) -> Any:
        if not isinstance(thing, np.ndarray | np.generic):
            kind = type(thing)
            return {
                "class": f"{kind.__module__}:{kind.__qualname__}",
                "vars": self.value(vars(thing)),
            }
        a = np.asarray(thing)
        order = sorted(range(a.ndim), key=lambda axis: -abs(a.strides[axis]))  # outermost first
        flipped = tuple(axis for axis in range(a.ndim) if a.strides[axis] < 0)
        buffers.append((np.flip(a, flipped) if flipped else a).transpose(order).tobytes())
        return {
            "dtype": a.dtype.str,
            "shape": a.shape,
            "order": order,
            "flipped": flipped,
            "writeable": bool(a.flags.writeable),
        }


def _is_array(v: Any) -> bool:
    """Whether this is an array or a scalar of NumPy; a matrix or a masked array is neither."""
    return type(v) in (np.ndarray, np.memmap) or isinstance(v, np.generic)


def _is_ours(v: Any) -> bool:
    return type(v).__module__.startswith("minires.") and hasattr(v, "__dict__")


def _foreign(v: Any) -> Any:
    try:
        text = repr(v)[:SHOWN]
    except Exception as e:
        text = f"<its repr raises {type(e).__name__}>"
    return {"foreign": [type(v).__name__, text]}


def pack(value: Any, known: Sequence[Any] = ()) -> tuple[bytes, list[Any]]:
    """Turn a value into a message; return it with its arrays and objects by number.

    The `known` arrays and objects have the first numbers.
    """
    writer = _Writer(known)
    root = writer.value(value)
    buffers: list[bytes] = []
    things: list[Any] = []
    while len(things) < len(writer.things):  # an object's attributes may add more
        things.append(writer.thing(writer.things[len(things)], buffers))
    head = json.dumps({"value": root, "things": things}).encode()
    return b"".join([struct.pack("<Q", len(head)), head, *buffers]), writer.things


# ---------------------------------------------------------------------------------------- reading


class _Reader:
    """Turn JSON back into values."""

    def __init__(self, head: Any, data: memoryview, known: Sequence[Any], make: bool) -> None:
        self.make = make
        self.things: list[Any] = []
        offset = 0
        for i, thing in enumerate(head["things"]):
            if "dtype" in thing:
                array, offset = _array(thing, data, offset)
                self.things.append(_written_back(array, known[i]) if i < len(known) else array)
            elif i < len(known):
                self.things.append(known[i])
            elif make:
                self.things.append(_new(thing["class"]))
            else:
                self.things.append(Foreign(str(thing["class"]), str(thing["class"])))
        pairs = zip(self.things, head["things"], strict=True)
        self.attributes = [
            (thing, self.value(told["vars"])) for thing, told in pairs if "vars" in told
        ]

    def value(self, v: Any) -> Any:
        if not isinstance(v, dict):
            return v
        if "array" in v:
            array = self.things[v["array"]]
            return array[()] if v["scalar"] else array
        if "tuple" in v:
            return tuple(self.value(item) for item in v["tuple"])
        if "list" in v:
            return [self.value(item) for item in v["list"]]
        if "dict" in v:
            return {_key(self.value(key)): self.value(item) for key, item in v["dict"]}
        if "complex" in v:
            return complex(*v["complex"])
        return self.things[v["object"]] if "object" in v else Foreign(*map(str, v["foreign"]))


def _key(key: Any) -> Any:
    return key if isinstance(key, str | int | float | tuple | type(None)) else repr(key)


def _array(thing: Any, data: memoryview, offset: int) -> tuple[np.ndarray, int]:
    dtype = np.dtype(thing["dtype"])
    if dtype.kind not in "biufc":
        raise ValueError(f"an array of {dtype}")
    order = thing["order"]
    shape = [thing["shape"][axis] for axis in order]
    count = math.prod(shape)
    flat = np.frombuffer(data, dtype, count, offset).copy()
    a = flat.reshape(shape).transpose([order.index(axis) for axis in range(len(order))])
    if thing["flipped"]:
        a = np.flip(a, tuple(thing["flipped"]))
    a.flags.writeable = thing["writeable"]
    return a, offset + flat.nbytes


def _written_back(array: np.ndarray, known: Any) -> np.ndarray:
    """The known array, with the contents that it has now."""
    if not isinstance(known, np.ndarray):  # a scalar, which never changes
        return array
    if known.shape != array.shape or known.dtype != array.dtype:
        raise ValueError(f"an array of shape {known.shape} returned with shape {array.shape}")
    if known.tobytes() != array.tobytes():
        known.flags.writeable = True
        known[...] = array
    return known


def _new(name: str) -> Any:
    """Make an object of minires without calling its constructor."""
    module, _, path = name.partition(":")
    kind = attrgetter(path)(importlib.import_module(module))
    return object.__new__(kind)


def unpack(message: bytes, known: Sequence[Any] = (), make: bool = False) -> tuple[Any, list[Any]]:
    """Read a message: its value, and its arrays and objects by number.

    Parameters
    ----------
    message : bytes
    known : sequence
        The arrays and objects that have the first numbers. They get the contents and attributes
        that the message describes.
    make : bool
        Make other objects of minires too.

    Raises
    ------
    BadMessageError
        If it cannot be read.
    """
    try:
        (length,) = struct.unpack_from("<Q", message)
        head = json.loads(message[8 : 8 + length])
        reader = _Reader(head, memoryview(message)[8 + length :], known, make)
        value = reader.value(head["value"])
    except Exception as e:
        raise BadMessageError(f"{type(e).__name__}: {e}") from None
    for thing, attributes in reader.attributes:
        vars(thing).update(attributes)
    return value, reader.things


# ---------------------------------------------------------------------------------------- the pipe


def send(pipe: IO[bytes], token: bytes, message: bytes) -> None:
    """Write a message to a pipe."""
    pipe.write(token + struct.pack("<Q", len(message)) + message)
    pipe.flush()


def receive(pipe: IO[bytes]) -> tuple[bytes, bytes] | None:
    """Read a token and a message from a pipe; None at its end.

    Raises
    ------
    BadMessageError
        If the message is too long.
    """
    head = pipe.read(TOKEN + 8)
    if len(head) < TOKEN + 8:
        return None
    (length,) = struct.unpack_from("<Q", head, TOKEN)
    if length > LONGEST:
        raise BadMessageError(f"a message of {length} bytes")
    message = pipe.read(length)
    return (head[:TOKEN], message) if len(message) == length else None
