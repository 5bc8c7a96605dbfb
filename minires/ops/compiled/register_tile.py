"""Register tiles as Numba values: small matrices that stay in registers.

A loop adds outer products to a tile. The lengths of two constant tuples give its numbers of rows
and of vectors in a row, see `simd`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, models, register_model

from minires.ops.compiled.simd import (
    Codegen,
    Memory,
    llvm_vector,
    multiply_add,
    native_vector,
    splat,
    zero,
)


class Tile(types.Type):
    """A matrix in registers: `rows` rows of `vectors` vectors, each of which fills a register."""

    def __init__(self, dtype: types.Type, rows: int, vectors: int):
        self.dtype = dtype
        self.rows = rows
        self.vectors = vectors
        self.lanes = native_vector(dtype).lanes
        super().__init__(name=f"Tile({dtype}, {rows} x {vectors} x {self.lanes})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Tile):
        registers = ir.ArrayType(llvm_vector(fe_type), fe_type.rows * fe_type.vectors)
        super().__init__(dmm, fe_type, registers)


@intrinsic
def tile_zeros(
    typingctx: Any, like: types.Array, rows: types.UniTuple, vectors: types.UniTuple
) -> Codegen:
    """Return a tile of zeros: len(rows) x len(vectors) registers, of the dtype of `like`."""
    return Tile(like.dtype, rows.count, vectors.count)(like, rows, vectors), zero


@intrinsic
def tile_outer(
    typingctx: Any,
    tile: Tile,
    x: types.Array,
    i: types.Type,
    stride: types.Type,
    w: types.Array,
    j: types.Type,
) -> Codegen:
    """Return tile[r, :] + x[i + r*stride] * w[j : j + width of the tile], an outer product."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        total, x_array, i, stride, w_array, j = args
        x_memory = Memory(context, builder, x, x_array)
        w_memory = Memory(context, builder, w, w_array)
        vector = llvm_vector(tile)
        index = j.type
        w_row = [
            w_memory.load(builder.add(j, index(v * tile.lanes)), vector)
            for v in range(tile.vectors)
        ]
        for r in range(tile.rows):
            position = builder.add(i, builder.mul(stride, index(r)))
            x_value = splat(builder, x_memory.load(position, vector.element), vector)
            for v in range(tile.vectors):
                register = r * tile.vectors + v
                old = builder.extract_value(total, register)
                new = multiply_add(builder, x_value, w_row[v], old)
                total = builder.insert_value(total, new, register)
        return total

    return tile(tile, x, types.intp, types.intp, w, types.intp), codegen


def _positions(builder: ir.IRBuilder, tile: Tile, i: ir.Value, stride: ir.Value) -> list[ir.Value]:
    """Position i + r*stride + v*lanes in an array of each vector of a tile."""
    return [
        builder.add(builder.add(i, builder.mul(stride, stride.type(r))), i.type(v * tile.lanes))
        for r, v in np.ndindex(tile.rows, tile.vectors)
    ]


@intrinsic
def tile_load(
    typingctx: Any,
    y: types.Array,
    i: types.Type,
    stride: types.Type,
    rows: types.UniTuple,
    vectors: types.UniTuple,
) -> Codegen:
    """Load a tile whose row r begins at y[i + r*stride]."""
    kind = Tile(y.dtype, rows.count, vectors.count)

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        memory = Memory(context, builder, y, args[0])
        tile = ir.Constant(context.get_value_type(kind), ir.Undefined)
        for register, position in enumerate(_positions(builder, kind, args[1], args[2])):
            value = memory.load(position, llvm_vector(kind))
            tile = builder.insert_value(tile, value, register)
        return tile

    return kind(y, types.intp, types.intp, rows, vectors), codegen


@intrinsic
def tile_store(
    typingctx: Any, tile: Tile, y: types.Array, i: types.Type, stride: types.Type
) -> Codegen:
    """Store a tile so that its row r begins at y[i + r*stride]."""

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        memory = Memory(context, builder, y, args[1])
        for register, position in enumerate(_positions(builder, tile, args[2], args[3])):
            memory.store(builder.extract_value(args[0], register), position)
        return context.get_dummy_value()

    return types.void(tile, y, types.intp, types.intp), codegen


@intrinsic
def tile_transpose(typingctx: Any, tile: Tile) -> Codegen:
    """Return the transpose of a square tile: as many rows as lanes, one vector in a row."""
    lanes = tile.lanes

    def codegen(context: Any, builder: ir.IRBuilder, signature: Any, args: tuple) -> ir.Value:
        rows = [builder.extract_value(args[0], r) for r in range(lanes)]
        step = 1
        while step < lanes:  # swap the blocks beside the diagonal, of 1, 2, 4, ... lanes
            upper = [i if not i & step else lanes + i - step for i in range(lanes)]
            lower = [i + step if not i & step else lanes + i for i in range(lanes)]
            for r in range(lanes):
                if not r & step:
                    pair = rows[r], rows[r + step]
                    rows[r] = _shuffle(builder, *pair, upper)
                    rows[r + step] = _shuffle(builder, *pair, lower)
            step *= 2
        result = args[0]
        for r, row in enumerate(rows):
            result = builder.insert_value(result, row, r)
        return result

    return tile(tile), codegen


def _shuffle(builder: ir.IRBuilder, a: ir.Value, b: ir.Value, positions: list[int]) -> ir.Value:
    """Select lanes of a, counted from 0, and of b, counted on after those of a."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(positions)), positions)
    return builder.shuffle_vector(a, b, mask)
