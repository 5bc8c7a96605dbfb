"""Vectors and register tiles as Numba values, so that a kernel reads like its formula and runs at the machine's width.

LLVM has vectors of any length and lowers them to the registers of the host. Numba does not expose them: this file does.
A size (lanes, rows, vectors) is the *length of a constant tuple*, since a tuple's type carries its length: integers
lose their value inside `prange`, and functions made by a factory are compiled again by every process.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, overload, register_model

from minires.ops.compiled.jit import inner
from minires.ops.compiled.tuning import CACHE_LINE, VECTOR_BYTES

Codegen = tuple[
    Any, Callable
]  # what an intrinsic returns: its signature, and the function that emits its instructions
ONE = (0,)  # the height of a tile of one row


def lanes(dtype: np.dtype) -> int:
    """How many values of `dtype` one register of the host holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


def contiguous(a: np.ndarray, dtype: np.dtype | None = None) -> np.ndarray:
    """Return `a` as kernels expect it, in native byte order: mostly `a` itself, else a copy."""
    dtype = (dtype or a.dtype).newbyteorder("=")
    return a if a.dtype == dtype and a.flags.carray else np.require(a, dtype, ["C", "A", "W"])


class Vector(types.Type):
    """`lanes` numbers of one dtype that are loaded, added, multiplied, compared and stored together."""

    def __init__(self, dtype: types.Type, lanes: int):
        self.dtype, self.lanes = dtype, lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


class Tile(types.Type):
    """A matrix of `rows` x (`vectors` registers) that a loop keeps in registers while it adds outer products."""

    def __init__(self, dtype: types.Type, rows: int, vectors: int):
        self.dtype, self.rows, self.vectors = dtype, rows, vectors
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(name=f"Tile({dtype}, {rows} x {vectors} x {self.lanes})")


def _scalar(dtype: types.Type) -> ir.Type:
    return ir.FloatType() if dtype.bitwidth == 32 else ir.DoubleType()


def _llvm(kind: Vector | Tile) -> ir.Type:
    return ir.VectorType(_scalar(kind.dtype), kind.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector):
        super().__init__(dmm, fe_type, _llvm(fe_type))


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Tile):
        super().__init__(dmm, fe_type, ir.ArrayType(_llvm(fe_type), fe_type.rows * fe_type.vectors))


# --------------------------------------------------------------------------------------------------- instructions used


class _Memory:
    """The values of one array, addressed by flat position. No alignment is assumed."""

    def __init__(
        self, context: Any, builder: ir.IRBuilder, array_type: types.Array, array: ir.Value
    ):
        struct = context.make_array(array_type)(context, builder, array)
        self.builder, self.itemsize = builder, array_type.dtype.bitwidth // 8
        self.data, self.size = struct.data, struct.nitems

    def address(self, position: ir.Value) -> ir.Value:
        return self.builder.gep(self.data, [position])

    def _cast(self, position: ir.Value, llvm_type: ir.Type) -> ir.Value:
        return self.builder.bitcast(self.address(position), llvm_type.as_pointer())

    def load(self, position: ir.Value, llvm_type: ir.Type) -> ir.Value:
        return self.builder.load(self._cast(position, llvm_type), align=self.itemsize)

    def store(self, value: ir.Value, position: ir.Value) -> None:
        self.builder.store(value, self._cast(position, value.type), align=self.itemsize)

    def is_whole(self, position: ir.Value, vector: ir.VectorType) -> ir.Value:
        """Whether a vector that begins here ends within the array."""
        return self.builder.icmp_signed(
            "<=", self.builder.add(position, position.type(vector.count)), self.size
        )

    def copy_rest(
        self, position: ir.Value, target: ir.Value | None = None, source: ir.Value | None = None
    ) -> None:
        """Copy what lies between a position and the end of the array to `target`, or from `source`."""
        left = self.builder.sub(self.size, position)
        here = self.address(position)
        cgutils.raw_memcpy(self.builder, target or here, source or here, left, self.itemsize)


def _broadcast(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    first = builder.insert_element(
        ir.Constant(vector, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
    )
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), zeros)


def _multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """Return a * b + c: one instruction where the host has it, two elsewhere."""
    name = f"llvm.fmuladd.v{a.type.count}f{32 if isinstance(a.type.element, ir.FloatType) else 64}"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


# ------------------------------------------------------------------------------------------------------------- vectors


def _zero(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
    return ir.Constant(context.get_value_type(signature.return_type), None)


@intrinsic
def register(typingctx: Any, array: types.Array) -> Codegen:
    """Return the width of a register: a tuple as long as the number of values of `array` that one register holds."""
    return types.UniTuple(types.int64, VECTOR_BYTES * 8 // array.dtype.bitwidth)(array), _zero


@intrinsic
def load_inside(typingctx: Any, array: types.Array, position: types.Type) -> Codegen:
    """Read a vector from array[position : ], which must end within the array."""
    kind = Vector(array.dtype, VECTOR_BYTES * 8 // array.dtype.bitwidth)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        return _Memory(context, builder, array, args[0]).load(args[1], _llvm(kind))

    return kind(array, types.intp), codegen


@intrinsic
def store_inside(
    typingctx: Any, array: types.Array, position: types.Type, value: Vector
) -> Codegen:
    """Write a vector to array[position : ], which must end within the array."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        _Memory(context, builder, array, args[0]).store(args[2], args[1])
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def load_or(typingctx: Any, array: types.Array, position: types.Type, beyond: Vector) -> Codegen:
    """Read a vector from array[position : ]; lanes that lie beyond the end of the array are those of `beyond`."""
    vector = _llvm(beyond)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        memory, result = (
            _Memory(context, builder, array, args[0]),
            cgutils.alloca_once(builder, vector),
        )
        with builder.if_else(memory.is_whole(args[1], vector), likely=True) as (whole, cut):
            with whole:
                builder.store(memory.load(args[1], vector), result)
            with cut:
                builder.store(args[2], result)
                memory.copy_rest(args[1], target=builder.bitcast(result, memory.data.type))
        return builder.load(result)

    return beyond(array, types.intp, beyond), codegen


@intrinsic
def store(typingctx: Any, array: types.Array, position: types.Type, value: Vector) -> Codegen:
    """Write a vector to array[position : ], as far as the array goes."""
    vector = _llvm(value)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        memory, last = (
            _Memory(context, builder, array, args[0]),
            cgutils.alloca_once(builder, vector),
        )
        with builder.if_else(memory.is_whole(args[1], vector), likely=True) as (whole, cut):
            with whole:
                memory.store(args[2], args[1])
            with cut:
                builder.store(args[2], last)
                memory.copy_rest(args[1], source=builder.bitcast(last, memory.data.type))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def pair(typingctx: Any, like: types.Array) -> Codegen:
    """Return two registers of zeros as one vector: while one waits for its sum, the other is added to."""
    return Vector(like.dtype, 2 * VECTOR_BYTES * 8 // like.dtype.bitwidth)(like), _zero


@inner
def load_pair(array: np.ndarray, position: int) -> Any:
    """Read two registers from array[position : ], with zeros beyond the end of the array."""
    return load_or(array, position, pair(array))


@intrinsic
def broadcast(typingctx: Any, scalar: types.Float, like: Vector) -> Codegen:
    """Return a vector as wide as `like` with `scalar` in every lane."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        return _broadcast(builder, args[0], _llvm(like))

    return like(like.dtype, like), codegen


def _define_arithmetic(python_operator: Callable, instruction: str) -> None:
    """Teach Numba `vector op vector` and `vector op scalar` for one operator."""

    @intrinsic
    def apply(typingctx: Any, a: Vector, b: Vector) -> Codegen:
        def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
            return getattr(builder, instruction)(*args, flags=("contract",))

        return a(a, b), codegen

    @overload(python_operator, strict=False)
    def typed(a: Any, b: Any) -> Callable | None:
        if isinstance(a, Vector) and isinstance(b, Vector):
            return lambda a, b: apply(a, b)
        if isinstance(a, Vector):
            return lambda a, b: apply(a, broadcast(b, a))
        return None


for _operator, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
):
    _define_arithmetic(_operator, _instruction)


@intrinsic
def maximum(typingctx: Any, a: Vector, b: types.Float) -> Codegen:
    """The larger of a vector and a number in each lane; the vector's where one of them is NaN."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        least = _broadcast(builder, args[1], _llvm(a))
        return builder.select(builder.fcmp_unordered(">", args[0], least), args[0], least)

    return a(a, a.dtype), codegen


@intrinsic
def keep(typingctx: Any, value: Vector, condition: Vector, floor: types.Float) -> Codegen:
    """`value` in the lanes where `condition` > `floor`, else 0; everything if the floor is NaN."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        least = _broadcast(builder, args[2], _llvm(condition))
        kept = builder.or_(
            builder.fcmp_ordered(">", args[1], least), builder.fcmp_unordered("uno", least, least)
        )
        return builder.select(kept, args[0], ir.Constant(_llvm(value), None))

    return value(value, condition, condition.dtype), codegen


@intrinsic
def copy(
    typingctx: Any, x: types.Array, i: types.Type, y: types.Array, j: types.Type, count: types.Type
) -> Codegen:
    """Copy a run: y[j : j + count] = x[i : i + count]."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        source, i, target, j, count = args
        source, target = _Memory(context, builder, x, source), _Memory(context, builder, y, target)
        cgutils.raw_memcpy(builder, target.address(j), source.address(i), count, source.itemsize)
        return context.get_dummy_value()

    return types.void(x, types.intp, y, types.intp, types.intp), codegen


@intrinsic
def expect(typingctx: Any, array: types.Array, position: types.Type) -> Codegen:
    """Ask for the cache lines of a pair of registers from array[position : ], so that writing them need not wait."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        address = _Memory(context, builder, array, args[0]).address(args[1])
        place, number = builder.bitcast(address, cgutils.voidptr_t), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [place.type, number, number, number])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        for line in range(0, 2 * VECTOR_BYTES, CACHE_LINE):
            at = builder.gep(place, [number(line)])
            builder.call(
                prefetch, [at, number(1), number(3), number(1)]
            )  # to be written, soon, data
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


@inner
def scratch(size: int, like: np.ndarray) -> np.ndarray:
    """Uninitialised memory of the dtype of `like` in which every register's worth of values lies in one cache line."""
    memory = np.empty(size + len(register(like)), like.dtype)
    first = -(memory.ctypes.data // memory.itemsize) % len(register(like))
    return memory[first : first + size]


@inner
def pad_image(x: np.ndarray, n: int, top: int, left: int, padded: np.ndarray) -> None:
    """Copy image n so that its corner lies at (top, left) of `padded`; a negative corner crops."""
    _, H, W, C = x.shape
    rows, columns, _ = padded.shape
    first, last = max(0, left), max(0, left, min(columns, left + W))
    for i in range(max(0, top), min(rows, top + H)):
        copy(
            x,
            ((n * H + i - top) * W + first - left) * C,
            padded,
            (i * columns + first) * C,
            (last - first) * C,
        )


# --------------------------------------------------------------------------------------------------------------- tiles


@intrinsic
def tile_zeros(
    typingctx: Any, like: types.Array, rows: types.UniTuple, vectors: types.UniTuple
) -> Codegen:
    """A tile of len(rows) x len(vectors) registers of zeros, of the dtype of the array `like`."""
    return Tile(like.dtype, rows.count, vectors.count)(like, rows, vectors), _zero


@intrinsic
def tile_outer(
    typingctx: Any,
    tile: Tile,
    x: types.Array,
    i: types.Type,
    step: types.Type,
    w: types.Array,
    j: types.Type,
) -> Codegen:
    """Add an outer product: tile[r, :] + x[i + r*step] * w[j : j + width of the tile], for every row r."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        total, x_array, i, step, w_array, j = args
        x_memory = _Memory(context, builder, x, x_array)
        w_memory = _Memory(context, builder, w, w_array)
        vector, index = _llvm(tile), j.type
        w_row = [
            w_memory.load(builder.add(j, index(v * tile.lanes)), vector)
            for v in range(tile.vectors)
        ]
        for r in range(tile.rows):
            at = builder.add(i, builder.mul(step, index(r)))
            x_value = _broadcast(builder, x_memory.load(at, vector.element), vector)
            for v in range(tile.vectors):
                register = r * tile.vectors + v
                old = builder.extract_value(total, register)
                total = builder.insert_value(
                    total, _multiply_add(builder, x_value, w_row[v], old), register
                )
        return total

    return tile(tile, x, types.intp, types.intp, w, types.intp), codegen


def _places(builder: ir.IRBuilder, tile: Tile, i: ir.Value, step: ir.Value) -> list[ir.Value]:
    """Positions i + r*step + v*lanes of the registers of a tile in an array."""
    return [
        builder.add(builder.add(i, builder.mul(step, step.type(r))), i.type(v * tile.lanes))
        for r, v in np.ndindex(tile.rows, tile.vectors)
    ]


@intrinsic
def tile_load(
    typingctx: Any,
    y: types.Array,
    i: types.Type,
    step: types.Type,
    rows: types.UniTuple,
    vectors: types.UniTuple,
) -> Codegen:
    """Read a tile whose row r begins at y[i + r*step]."""
    kind = Tile(y.dtype, rows.count, vectors.count)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        memory, tile = (
            _Memory(context, builder, y, args[0]),
            ir.Constant(context.get_value_type(kind), ir.Undefined),
        )
        for register, place in enumerate(_places(builder, kind, args[1], args[2])):
            tile = builder.insert_value(tile, memory.load(place, _llvm(kind)), register)
        return tile

    return kind(y, types.intp, types.intp, rows, vectors), codegen


@intrinsic
def tile_store(
    typingctx: Any, tile: Tile, y: types.Array, i: types.Type, step: types.Type
) -> Codegen:
    """Write a tile so that its row r begins at y[i + r*step]."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        memory = _Memory(context, builder, y, args[1])
        for register, place in enumerate(_places(builder, tile, args[2], args[3])):
            memory.store(builder.extract_value(args[0], register), place)
        return context.get_dummy_value()

    return types.void(tile, y, types.intp, types.intp), codegen
