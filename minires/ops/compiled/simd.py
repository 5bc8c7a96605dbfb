"""SIMD vectors as Numba values, so that a kernel reads like its formula.

LLVM has vectors of any length and lowers them to the registers of the host. Numba does not expose
them; this file does. A *wide* vector fills two registers: two accumulators hide the latency of an
addition.

The number of lanes must be known at compile time. It is passed as the *length of a constant
tuple*, because a tuple's type carries its length. An integer would lose its value inside `prange`,
and a kernel made by a factory function would be compiled again by every process.
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

# an intrinsic returns its signature and the function that emits its instructions
Codegen = tuple[Any, Callable]


def lane_count(dtype: np.dtype) -> int:
    """Return the number of lanes: values of `dtype` in one register of the host."""
    return VECTOR_BYTES // np.dtype(dtype).itemsize


class Vector(types.Type):
    """`lanes` numbers of one dtype that instructions treat as one value."""

    def __init__(self, dtype: types.Type, lanes: int):
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


def native_vector(dtype: types.Type) -> Vector:
    """Return the vector type that fills one register of the host."""
    return Vector(dtype, VECTOR_BYTES * 8 // dtype.bitwidth)


def llvm_vector(kind: Any) -> ir.Type:
    """Return the LLVM type of a vector, or of one vector of a tile."""
    scalar = ir.FloatType() if kind.dtype.bitwidth == 32 else ir.DoubleType()
    return ir.VectorType(scalar, kind.lanes)


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Vector):
        super().__init__(dmm, fe_type, llvm_vector(fe_type))


# ------------------------------------------------------------------------------- LLVM instructions


class Memory:
    """The values of one array, addressed by flat position; loads and stores are unaligned."""

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

    def fits(self, position: ir.Value, vector: ir.VectorType) -> ir.Value:
        """Whether a vector that begins at a position ends within the array."""
        end = self.builder.add(position, position.type(vector.count))
        return self.builder.icmp_signed("<=", end, self.size)

    def copy_tail(
        self, position: ir.Value, target: ir.Value | None = None, source: ir.Value | None = None
    ) -> None:
        """Copy array[position : ] to `target`, or overwrite it with values from `source`."""
        count = self.builder.sub(self.size, position)
        tail = self.address(position)
        cgutils.raw_memcpy(self.builder, target or tail, source or tail, count, self.itemsize)


def splat(builder: ir.IRBuilder, scalar: ir.Value, vector: ir.VectorType) -> ir.Value:
    """Return a vector with `scalar` in every lane."""
    undefined = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None)
    return builder.shuffle_vector(first, undefined, zeros)


def multiply_add(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, c: ir.Value) -> ir.Value:
    """Return a * b + c: one fused instruction where the host has it, else two."""
    name = f"llvm.fmuladd.v{a.type.count}f{32 if isinstance(a.type.element, ir.FloatType) else 64}"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


def zero(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
    """Emit the zero of the type that an intrinsic returns."""
    return ir.Constant(context.get_value_type(signature.return_type), None)


# -------------------------------------------------------------------------------- loads and stores


@intrinsic
def lanes(typingctx: Any, array: types.Array) -> Codegen:
    """Return a tuple whose length is the number of lanes: values of `array` in one register."""
    return types.UniTuple(types.int64, native_vector(array.dtype).lanes)(array), zero


@intrinsic
def load(typingctx: Any, array: types.Array, position: types.Type) -> Codegen:
    """Load one register from array[position : ]; it must end within the array."""
    kind = native_vector(array.dtype)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        return Memory(context, builder, array, args[0]).load(args[1], llvm_vector(kind))

    return kind(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: types.Array, position: types.Type, value: Vector) -> Codegen:
    """Store a vector to array[position : ]; it must end within the array."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        Memory(context, builder, array, args[0]).store(args[2], args[1])
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def load_masked(typingctx: Any, array: types.Array, position: types.Type, fill: Vector) -> Codegen:
    """Load a vector from array[position : ]; lanes beyond the end of the array come from `fill`."""
    vector = llvm_vector(fill)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        memory = Memory(context, builder, array, args[0])
        result = cgutils.alloca_once(builder, vector)
        with builder.if_else(memory.fits(args[1], vector), likely=True) as (whole, tail):
            with whole:
                builder.store(memory.load(args[1], vector), result)
            with tail:
                builder.store(args[2], result)
                memory.copy_tail(args[1], target=builder.bitcast(result, memory.data.type))
        return builder.load(result)

    return fill(array, types.intp, fill), codegen


@intrinsic
def store_masked(
    typingctx: Any, array: types.Array, position: types.Type, value: Vector
) -> Codegen:
    """Store a vector to array[position : ]; lanes beyond the end of the array are dropped."""
    vector = llvm_vector(value)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        memory = Memory(context, builder, array, args[0])
        copied = cgutils.alloca_once(builder, vector)
        with builder.if_else(memory.fits(args[1], vector), likely=True) as (whole, tail):
            with whole:
                memory.store(args[2], args[1])
            with tail:
                builder.store(args[2], copied)
                memory.copy_tail(args[1], source=builder.bitcast(copied, memory.data.type))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def wide_zeros(typingctx: Any, like: types.Array) -> Codegen:
    """Return a wide vector of zeros, of the dtype of the array `like`."""
    return Vector(like.dtype, 2 * native_vector(like.dtype).lanes)(like), zero


@inline
def load_wide(array: np.ndarray, position: int) -> Any:
    """Load a wide vector from array[position : ], with zeros beyond the end of the array."""
    return load_masked(array, position, wide_zeros(array))


@intrinsic
def copy(
    typingctx: Any, x: types.Array, i: types.Type, y: types.Array, j: types.Type, count: types.Type
) -> Codegen:
    """Copy values: y[j : j + count] = x[i : i + count]."""

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
    """Prefetch the cache lines of a wide vector at array[position : ] for writing."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        address = Memory(context, builder, array, args[0]).address(args[1])
        start = builder.bitcast(address, cgutils.voidptr_t)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [start.type, number, number, number])
        instruction = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        options = number(1), number(3), number(1)  # write, highest temporal locality, data cache
        for line in range(0, 2 * VECTOR_BYTES, CACHE_LINE):
            builder.call(instruction, [builder.gep(start, [number(line)]), *options])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


# -------------------------------------------------------------------------------------- arithmetic


@intrinsic
def broadcast(typingctx: Any, scalar: types.Float, like: Vector) -> Codegen:
    """Return a vector with the lanes of `like` and `scalar` in each of them."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        return splat(builder, args[0], llvm_vector(like))

    return like(like.dtype, like), codegen


def _define_arithmetic(python_operator: Callable, instruction: str) -> None:
    """Define `vector op vector` and `vector op scalar` for one operator."""

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
    """Return max(a, b) in each lane of a; a where either is NaN."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        bound = splat(builder, args[1], llvm_vector(a))
        return builder.select(builder.fcmp_unordered(">", args[0], bound), args[0], bound)

    return a(a, a.dtype), codegen


@intrinsic
def select_above(typingctx: Any, value: Vector, reference: Vector, floor: types.Float) -> Codegen:
    """Return `value` in lanes where `reference` > `floor`, in all lanes if floor is NaN.

    The other lanes are value - value: 0, or NaN where `value` is NaN or infinite. So a NaN in a
    gradient passes through a ReLU as in NumPy's dy * (x > 0).
    """

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        bound = splat(builder, args[2], llvm_vector(reference))
        above = builder.fcmp_ordered(">", args[1], bound)
        no_floor = builder.fcmp_unordered("uno", bound, bound)
        zero_or_nan = builder.fsub(args[0], args[0])
        return builder.select(builder.or_(above, no_floor), args[0], zero_or_nan)

    return value(value, reference, reference.dtype), codegen
