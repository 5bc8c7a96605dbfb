"""Vectors as Numba values, so that a kernel reads like its formula and uses whole registers.

LLVM has vectors of any length and lowers them to the registers of the host. Numba does not expose
them: this file does. A number of lanes is the *length of a constant tuple*, since a tuple's type
carries its length: integers lose their value inside `prange`, and functions made by a factory are
compiled again by every process.
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

from minires.ops.compiled.jit import inline
from minires.ops.compiled.tuning import CACHE_LINE, VECTOR_BYTES

# what an intrinsic returns: its signature, and the function that emits its instructions
Codegen = tuple[Any, Callable]


def lane_count(dtype: np.dtype) -> int:
    """Return how many values of `dtype` one register of the host holds."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


class Vector(types.Type):
    """`lanes` numbers of one dtype that are loaded, computed with and stored together."""

    def __init__(self, dtype: types.Type, lanes: int):
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


def register_of(dtype: types.Type) -> Vector:
    """Return the vector type that fills one register."""
    return Vector(dtype, VECTOR_BYTES * 8 // dtype.bitwidth)


def llvm_vector(kind: Any) -> ir.Type:
    """Return the LLVM type of a vector, or of one register of a tile."""
    scalar = ir.FloatType() if kind.dtype.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(scalar, kind.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector):
        super().__init__(dmm, fe_type, llvm_vector(fe_type))


# ------------------------------------------------------------------------------- LLVM instructions


class Memory:
    """The values of one array, addressed by flat position. No alignment is assumed."""

    def __init__(
        self, context: Any, builder: ir.IRBuilder, array_type: types.Array, array: ir.Value
    ):
        struct = context.make_array(array_type)(context, builder, array)
        self.builder = builder
        self.itemsize = array_type.dtype.bitwidth // 8
        self.data = struct.data
        self.size = struct.nitems

    def address(self, position: ir.Value) -> ir.Value:
        """Pointer to the value at a position."""
        return self.builder.gep(self.data, [position])

    def _cast(self, position: ir.Value, llvm_type: ir.Type) -> ir.Value:
        return self.builder.bitcast(self.address(position), llvm_type.as_pointer())

    def load(self, position: ir.Value, llvm_type: ir.Type) -> ir.Value:
        """Read a value of any LLVM type."""
        return self.builder.load(self._cast(position, llvm_type), align=self.itemsize)

    def store(self, value: ir.Value, position: ir.Value) -> None:
        """Write a value of any LLVM type."""
        self.builder.store(value, self._cast(position, value.type), align=self.itemsize)

    def is_whole(self, position: ir.Value, vector: ir.VectorType) -> ir.Value:
        """Whether a vector that begins here ends within the array."""
        end = self.builder.add(position, position.type(vector.count))
        return self.builder.icmp_signed("<=", end, self.size)

    def copy_rest(
        self, position: ir.Value, target: ir.Value | None = None, source: ir.Value | None = None
    ) -> None:
        """Copy the array from a position to its end to `target`, or from `source`."""
        left = self.builder.sub(self.size, position)
        here = self.address(position)
        cgutils.raw_memcpy(self.builder, target or here, source or here, left, self.itemsize)


def splat(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    """Return a vector with `scalar` in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(first, undefined, zeros)


def multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """Return a * b + c: one instruction where the host has it, two elsewhere."""
    name = f"llvm.fmuladd.v{a.type.count}f{32 if isinstance(a.type.element, ir.FloatType) else 64}"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def zero(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
    """Emit the zero of whatever type an intrinsic returns."""
    return ir.Constant(context.get_value_type(signature.return_type), None)


# ------------------------------------------------------------------------------------------ memory


@intrinsic
def lanes(typingctx: Any, array: types.Array) -> Codegen:
    """Return a tuple as long as the number of values of `array` that one register holds."""
    return types.UniTuple(types.int64, register_of(array.dtype).lanes)(array), zero


@intrinsic
def load_inside(typingctx: Any, array: types.Array, position: types.Type) -> Codegen:
    """Read a register from array[position : ], which must end within the array."""
    kind = register_of(array.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        return Memory(context, builder, array, args[0]).load(args[1], llvm_vector(kind))

    return kind(array, types.intp), codegen


@intrinsic
def store_inside(
    typingctx: Any, array: types.Array, position: types.Type, value: Vector
) -> Codegen:
    """Write a vector to array[position : ], which must end within the array."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        Memory(context, builder, array, args[0]).store(args[2], args[1])
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def load_or(typingctx: Any, array: types.Array, position: types.Type, beyond: Vector) -> Codegen:
    """Read a vector from array[position : ]; lanes beyond the end of the array are `beyond`'s."""
    vector = llvm_vector(beyond)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        memory = Memory(context, builder, array, args[0])
        result = cgutils.alloca_once(builder, vector)
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
    vector = llvm_vector(value)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        memory = Memory(context, builder, array, args[0])
        last = cgutils.alloca_once(builder, vector)
        with builder.if_else(memory.is_whole(args[1], vector), likely=True) as (whole, cut):
            with whole:
                memory.store(args[2], args[1])
            with cut:
                builder.store(args[2], last)
                memory.copy_rest(args[1], source=builder.bitcast(last, memory.data.type))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def zero_pair(typingctx: Any, like: types.Array) -> Codegen:
    """Return two registers of zeros as one vector: two accumulators hide the latency of adding."""
    return Vector(like.dtype, 2 * register_of(like.dtype).lanes)(like), zero


@inline
def load_pair(array: np.ndarray, position: int) -> Any:
    """Read two registers from array[position : ], with zeros beyond the end of the array."""
    return load_or(array, position, zero_pair(array))


@intrinsic
def copy(
    typingctx: Any, x: types.Array, i: types.Type, y: types.Array, j: types.Type, count: types.Type
) -> Codegen:
    """Copy a run: y[j : j + count] = x[i : i + count]."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        source = Memory(context, builder, x, args[0])
        target = Memory(context, builder, y, args[2])
        begin = source.address(args[1])
        to = target.address(args[3])
        cgutils.raw_memcpy(builder, to, begin, args[4], source.itemsize)
        return context.get_dummy_value()

    return types.void(x, types.intp, y, types.intp, types.intp), codegen


@intrinsic
def prefetch(typingctx: Any, array: types.Array, position: types.Type) -> Codegen:
    """Prefetch the cache lines of two registers from array[position : ] for writing."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        address = Memory(context, builder, array, args[0]).address(args[1])
        start = builder.bitcast(address, cgutils.voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [start.type, number, number, number])
        instruction = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        options = number(1), number(3), number(1)  # to be written, soon, data
        for line in range(0, 2 * VECTOR_BYTES, CACHE_LINE):
            builder.call(instruction, [builder.gep(start, [number(line)]), *options])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


# -------------------------------------------------------------------------------------- arithmetic


@intrinsic
def broadcast(typingctx: Any, scalar: types.Float, like: Vector) -> Codegen:
    """Return a vector as wide as `like` with `scalar` in every lane."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        return splat(builder, args[0], llvm_vector(like))

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
    """Return the larger of a vector and a number in each lane; the vector where one is NaN."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        least = splat(builder, args[1], llvm_vector(a))
        return builder.select(builder.fcmp_unordered(">", args[0], least), args[0], least)

    return a(a, a.dtype), codegen


@intrinsic
def select(typingctx: Any, value: Vector, condition: Vector, floor: types.Float) -> Codegen:
    """Return `value` in lanes where `condition` > `floor`, else 0; everything if floor is NaN."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        least = splat(builder, args[2], llvm_vector(condition))
        above = builder.fcmp_ordered(">", args[1], least)
        no_floor = builder.fcmp_unordered("uno", least, least)
        zeros = ir.Constant(llvm_vector(value), None)
        return builder.select(builder.or_(above, no_floor), args[0], zeros)

    return value(value, condition, condition.dtype), codegen
