"""The one-dimensional transforms of Winograd's F(4, 3): three weights, four outputs, six inputs.

Each transforms one direction of a tile. Call it again for the other direction. See `winograd`.
"""

from __future__ import annotations

from minires.ops.compiled.jit import inline
from minires.ops.compiled.simd import Vector

# Interpolation points 0, P, -P, Q, -Q and infinity, chosen for small rounding errors, see LOG.md
P = 5 / 8
Q = 3 / 2
PP = P * P
QQ = Q * Q
# Lagrange interpolation: for each finite point, 1 / product of its differences to the other four
AT_0 = 1 / (PP * QQ)
AT_P = 1 / (2 * PP * (PP - QQ))
AT_Q = 1 / (2 * QQ * (QQ - PP))


@inline
def filters(g0: Vector, g1: Vector, g2: Vector) -> tuple:
    """G g."""
    even_p = g0 + g2 * PP
    odd_p = g1 * P
    even_q = g0 + g2 * QQ
    odd_q = g1 * Q
    at_p = (even_p + odd_p) * AT_P
    at_minus_p = (even_p - odd_p) * AT_P
    return g0 * AT_0, at_p, at_minus_p, (even_q + odd_q) * AT_Q, (even_q - odd_q) * AT_Q, g2


@inline
def filters_gradient(
    m0: Vector, m1: Vector, m2: Vector, m3: Vector, m4: Vector, m5: Vector
) -> tuple:
    """G^T m."""
    sum_p = (m1 + m2) * AT_P
    difference_p = (m1 - m2) * AT_P
    sum_q = (m3 + m4) * AT_Q
    difference_q = (m3 - m4) * AT_Q
    return (
        m0 * AT_0 + sum_p + sum_q,
        difference_p * P + difference_q * Q,
        sum_p * PP + sum_q * QQ + m5,
    )


@inline
def image(d0: Vector, d1: Vector, d2: Vector, d3: Vector, d4: Vector, d5: Vector) -> tuple:
    """B^T d."""
    even_p = d4 - d2 * QQ
    odd_p = (d3 - d1 * QQ) * P
    even_q = d4 - d2 * PP
    odd_q = (d3 - d1 * PP) * Q
    first = d0 * (PP * QQ) - d2 * (PP + QQ) + d4
    last = d1 * (PP * QQ) - d3 * (PP + QQ) + d5
    return first, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, last


@inline
def output(m0: Vector, m1: Vector, m2: Vector, m3: Vector, m4: Vector, m5: Vector) -> tuple:
    """A^T m."""
    sum_p = m1 + m2
    difference_p = m1 - m2
    sum_q = m3 + m4
    difference_q = m3 - m4
    return (
        m0 + sum_p + sum_q,
        difference_p * P + difference_q * Q,
        sum_p * PP + sum_q * QQ,
        m5 + difference_p * (P * PP) + difference_q * (Q * QQ),
    )


@inline
def gradient(y0: Vector, y1: Vector, y2: Vector, y3: Vector) -> tuple:
    """A dy."""
    even_p = y0 + y2 * PP
    odd_p = (y1 + y3 * PP) * P
    even_q = y0 + y2 * QQ
    odd_q = (y1 + y3 * QQ) * Q
    return y0, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, y3
