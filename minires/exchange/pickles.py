"""Read the pickle in a file of weights without running it.

A pickle is a program for a machine with a stack and a memo. Its instructions make numbers, texts
and containers, and `REDUCE` calls a function that the pickle names: that is how a pickle runs
foreign code. This machine knows the instructions that a dict of tensors needs, and the few names in
`CALLS`. A name stands for a function of this file, so nothing is imported and nothing foreign is
called. Anything else is refused.

The instructions are those of Python's `pickletools`; the calls are those of `torch.save`.
"""

from __future__ import annotations

import io
import pickletools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from minires.text import shown

LONGEST = 8 << 20  # bytes of one pickle; that of a network with 150 layers has 0.1 million


class RefusedError(ValueError):
    """The pickle asks for something that a dict of tensors does not need."""


@dataclass(frozen=True)
class Storage:
    """A block of numbers outside the pickle: its name there, their type and their number."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True)
class Tensor:
    """A window into a storage: first element, shape, and steps between elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        numbers = (self.offset, *self.shape, *self.strides)
        if not isinstance(self.storage, Storage) or not _are_sizes(numbers):
            raise RefusedError(f"a tensor of shape {shown(self.shape, 60)} is malformed")
        if len(self.shape) != len(self.strides) or len(self.shape) > 8:
            raise RefusedError(f"a tensor has shape {self.shape} and strides {self.strides}")
        last, count = self.offset, 1
        for side, step in zip(self.shape, self.strides, strict=True):
            last += (side - 1) * step
            count *= side
        if count and (last >= self.storage.numel or count > self.storage.numel):
            raise RefusedError(
                f"a tensor of shape {self.shape} does not fit into its {self.storage.numel} numbers"
            )


def _are_sizes(values: Sequence[Any]) -> bool:
    return all(type(v) is int and 0 <= v < 2**48 for v in values)


STORAGES = {  # the type of a storage: NumPy's name; bfloat16 is the upper half of a float32
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Tensor:
    if not (isinstance(shape, tuple) and isinstance(strides, tuple)):
        raise RefusedError("a tensor without shape and strides")
    return Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> Tensor:
    if not isinstance(tensor, Tensor):
        raise RefusedError("a parameter that is not a tensor")
    return tensor


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for pair in pairs:
        if not (isinstance(pair, (list, tuple)) and len(pair) == 2):
            raise RefusedError("an ordered dict of other things than pairs")
        _set(found, *pair)
    return found


CALLS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
TYPES = {f"torch.{name}": dtype for name, dtype in STORAGES.items()}


@dataclass(frozen=True)
class Name:
    """A name that the pickle wrote, one of `CALLS` or `TYPES`."""

    text: str


def _set(target: Any, key: Any, value: Any) -> None:
    """Set an item; keys that nest are refused, as hashing them may overflow the stack."""
    if type(target) is not dict or type(key) not in (str, int, float, bool, type(None)):
        raise RefusedError(f"an item of a {type(target).__name__} with a {type(key).__name__}")
    target[key] = value


class _Machine:
    """Stack, memo, and a method for each instruction that takes more than a constant."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.steps = self.copied = 0

    def run(self, stream: io.BytesIO) -> Any:
        """Return the object that the pickle builds."""
        for instruction, argument, _ in pickletools.genops(stream):
            self.steps += 1
            name = instruction.name
            if name in CONSTANTS:
                self.stack.append(argument)
            elif name in MADE:
                self.stack.append(MADE[name]())
            elif name in ACTIONS:
                ACTIONS[name](self, argument)
            elif name == "STOP":
                return self.stack.pop()
            elif name not in ("PROTO", "FRAME"):
                raise RefusedError(f"the instruction {name}, which a dict of tensors does not need")
        raise EOFError("the pickle has no end")

    def pop_mark(self) -> list[Any]:
        """Remove everything above the last mark, and return it."""
        start = self.marks.pop()
        above = self.stack[start:]
        del self.stack[start:]
        return above

    def make_tuple(self, count: int | None) -> None:
        """Replace `count` values, or those above the mark, by a tuple of them."""
        above = self.pop_mark() if count is None else [self.stack.pop() for _ in range(count)][::-1]
        self.stack.append(tuple(above))

    def set_items(self, pairs: Sequence[Any]) -> None:
        """Add keys and values, which alternate, to the dict at the top."""
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            _set(self.stack[-1], key, value)

    def append(self, values: Sequence[Any]) -> None:
        """Extend the list at the top."""
        if type(self.stack[-1]) is not list:
            raise RefusedError("an append to what is not a list")
        self.stack[-1].extend(values)

    def name(self, module: Any, name: Any) -> None:
        """Put a name on the stack; it stands for nothing but an entry of a table."""
        text = f"{module}.{name}"
        if text not in CALLS and text not in TYPES:
            raise RefusedError(f"the name {shown(text, 80)}, which could run anything")
        self.stack.append(Name(text))

    def call(self) -> None:
        """Call a function of `CALLS`; a list of pairs is copied once, not once for each call."""
        arguments = self.stack.pop()
        name = self.stack.pop()
        if not isinstance(name, Name) or name.text not in CALLS or type(arguments) is not tuple:
            raise RefusedError("a call of what is not a function")
        if name.text == "collections.OrderedDict" and arguments:
            self.copied += len(arguments[0])
        if self.copied > self.steps or len(arguments) > 8:
            raise RefusedError("a call with more arguments than the pickle has instructions")
        self.stack.append(CALLS[name.text](*arguments))

    def build(self) -> None:
        """Drop the attributes of a dict; PyTorch stores versions of its layers there."""
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise RefusedError("attributes of what is not a dict")

    def storage(self) -> None:
        """Replace the description of a storage by a `Storage`."""
        word, kind, key, _, numel = _five(self.stack.pop())
        if word != "storage" or not isinstance(kind, Name) or kind.text not in TYPES:
            raise RefusedError("a reference to something else than a storage of numbers")
        if not isinstance(key, str) or not _are_sizes([numel]):
            raise RefusedError("a storage without a name or a size")
        storage = Storage(key, TYPES[kind.text], numel)
        if self.storages.setdefault(key, storage) != storage:
            raise RefusedError(f"two storages named {shown(key, 40)}")
        self.stack.append(storage)


def _five(described: Any) -> Sequence[Any]:
    """The five parts of a storage; a sixth, of old files, says that it is not a view of another."""
    if (
        type(described) is not tuple
        or len(described) not in (5, 6)
        or described[5:]
        not in (
            (),
            (None,),
        )
    ):
        raise RefusedError("a storage that is a view of another one")
    return described[:5]


CONSTANTS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"}
CONSTANTS |= {"SHORT_BINUNICODE", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES"}
MADE: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}
ACTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "TUPLE": lambda m, _: m.make_tuple(None),
    "TUPLE1": lambda m, _: m.make_tuple(1),
    "TUPLE2": lambda m, _: m.make_tuple(2),
    "TUPLE3": lambda m, _: m.make_tuple(3),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(), m.stack.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "APPEND": lambda m, _: m.append([m.stack.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "BINPUT": lambda m, i: m.memo.__setitem__(i, m.stack[-1]),
    "LONG_BINPUT": lambda m, i: m.memo.__setitem__(i, m.stack[-1]),
    "MEMOIZE": lambda m, _: m.memo.__setitem__(len(m.memo), m.stack[-1]),
    "BINGET": lambda m, i: m.stack.append(m.memo[i]),
    "LONG_BINGET": lambda m, i: m.stack.append(m.memo[i]),
    "GLOBAL": lambda m, text: m.name(*text.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.name(*[m.stack.pop(), m.stack.pop()][::-1]),
    "REDUCE": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.storage(),
}


def load(stream: Any) -> tuple[Any, dict[str, Storage]]:
    """Read one pickle from a binary stream, and leave the stream behind it.

    Returns
    -------
    found : object
        Numbers, texts, lists, tuples, dicts, and `Tensor`, whose numbers are not read yet.
    storages : dict of str to Storage
        Those that the tensors need, and maybe others.

    Raises
    ------
    RefusedError
        If the pickle asks for anything else; nothing was run.
    EOFError
        If it is cut short.
    """
    start = stream.tell()
    content = stream.read(LONGEST)
    inside = io.BytesIO(content)
    machine = _Machine()
    try:
        found = machine.run(inside)
    except RefusedError:
        raise
    except (EOFError, ValueError) as e:
        if inside.tell() >= len(content) and len(content) < LONGEST:
            raise EOFError("the file is cut short") from e
        raise RefusedError(f"a pickle that is damaged: {shown(e, 100)}") from e
    except Exception as e:  # a damaged pickle can raise nearly anything
        raise RefusedError(f"a pickle that is damaged: {type(e).__name__}") from e
    stream.seek(start + inside.tell())
    return found, machine.storages
