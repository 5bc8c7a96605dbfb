"""The one-dimensional transforms of Winograd's F(4, 3): three weights, four outputs, six inputs; see `winograd`.

Each does its matrix to one direction of a tile; the tile's other direction is done by calling it again.
"""

from __future__ import annotations

from minires.ops.compiled.jit import inner
from minires.ops.compiled.simd import Vector

# The points: 0, P, -P, Q, -Q and infinity. These two round least of those tried: root mean square errors on 16 to 64
# channels, float32, are 4.9e-7 to 8.3e-7 of outputs and of weights' gradients; with the usual 1 and 2 they are 1.0e-6
# to 1.9e-6, and F(2x2, 3x3), which has 64 products for the same outputs, has 1.6e-7 to 4.8e-7.
P, Q = 5 / 8, 3 / 2
PP, QQ = P * P, Q * Q
# of each finite point, 1 / product of its distances to the other four: what makes of values a polynomial
AT_0, AT_P, AT_Q = 1 / (PP * QQ), 1 / (2 * PP * (PP - QQ)), 1 / (2 * QQ * (QQ - PP))


@inner
def filters(g0: Vector, g1: Vector, g2: Vector) -> tuple:
    """G g."""
    even_p, odd_p, even_q, odd_q = g0 + g2 * PP, g1 * P, g0 + g2 * QQ, g1 * Q
    at_p, at_minus_p = (even_p + odd_p) * AT_P, (even_p - odd_p) * AT_P
    return g0 * AT_0, at_p, at_minus_p, (even_q + odd_q) * AT_Q, (even_q - odd_q) * AT_Q, g2


@inner
def filters_gradient(
    m0: Vector, m1: Vector, m2: Vector, m3: Vector, m4: Vector, m5: Vector
) -> tuple:
    """G^T m."""
    sum_p, difference_p = (m1 + m2) * AT_P, (m1 - m2) * AT_P
    sum_q, difference_q = (m3 + m4) * AT_Q, (m3 - m4) * AT_Q
    return (
        m0 * AT_0 + sum_p + sum_q,
        difference_p * P + difference_q * Q,
        sum_p * PP + sum_q * QQ + m5,
    )


@inner
def image(d0: Vector, d1: Vector, d2: Vector, d3: Vector, d4: Vector, d5: Vector) -> tuple:
    """B^T d."""
    even_p, odd_p = d4 - d2 * QQ, (d3 - d1 * QQ) * P
    even_q, odd_q = d4 - d2 * PP, (d3 - d1 * PP) * Q
    first, last = d0 * (PP * QQ) - d2 * (PP + QQ) + d4, d1 * (PP * QQ) - d3 * (PP + QQ) + d5
    return first, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, last


@inner
def output(m0: Vector, m1: Vector, m2: Vector, m3: Vector, m4: Vector, m5: Vector) -> tuple:
    """A^T m."""
    sum_p, difference_p, sum_q, difference_q = m1 + m2, m1 - m2, m3 + m4, m3 - m4
    y0, y1 = m0 + sum_p + sum_q, difference_p * P + difference_q * Q
    return y0, y1, sum_p * PP + sum_q * QQ, m5 + difference_p * (P * PP) + difference_q * (Q * QQ)


@inner
def gradient(y0: Vector, y1: Vector, y2: Vector, y3: Vector) -> tuple:
    """A dy."""
    even_p, odd_p = y0 + y2 * PP, (y1 + y3 * PP) * P
    even_q, odd_q = y0 + y2 * QQ, (y1 + y3 * QQ) * Q
    return y0, even_p + odd_p, even_p - odd_p, even_q + odd_q, even_q - odd_q, y3
