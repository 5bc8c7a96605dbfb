"""Slow reference ops: loops in float64, written independently of the library."""

import itertools
import math

import numpy as np


def padded(x, n, i, j, c, fill=0.0):
    _, H, W, _ = x.shape
    return x[n, i, j, c] if 0 <= i < H and 0 <= j < W else fill


def size(H, K, stride, pad):
    return (H + 2 * pad - K) // stride + 1


def rows_and_columns(value):
    return value if isinstance(value, tuple) else (value, value)


def channel(k, c, w, groups):
    """Channel of x that weight c of filter k multiplies; a group's filters share its channels."""
    group = k // (w.shape[3] // groups)
    return group * w.shape[2] + c


def conv2d(x, w, stride, pad, groups=1):
    (N, H, W, _), (KH, KW, C, K) = x.shape, w.shape
    (SH, SW), (PH, PW) = rows_and_columns(stride), rows_and_columns(pad)
    y = np.zeros((N, size(H, KH, SH, PH), size(W, KW, SW, PW), K))
    for n, i, j, k in np.ndindex(y.shape):
        for p, q, c in itertools.product(range(KH), range(KW), range(C)):
            seen = channel(k, c, w, groups)
            y[n, i, j, k] += padded(x, n, i * SH + p - PH, j * SW + q - PW, seen) * w[p, q, c, k]
    return y


def conv2d_gradients(x, w, dy, stride, pad, groups=1):
    (_, H, W, _), (KH, KW, C, _) = x.shape, w.shape
    (SH, SW), (PH, PW) = rows_and_columns(stride), rows_and_columns(pad)
    dx, dw = np.zeros(x.shape), np.zeros(w.shape)
    for n, i, j, k in np.ndindex(dy.shape):
        for p, q, c in itertools.product(range(KH), range(KW), range(C)):
            r, s = i * SH + p - PH, j * SW + q - PW
            if 0 <= r < H and 0 <= s < W:
                seen = channel(k, c, w, groups)
                dx[n, r, s, seen] += w[p, q, c, k] * dy[n, i, j, k]
                dw[p, q, c, k] += x[n, r, s, seen] * dy[n, i, j, k]
    return dx, dw


def max_pool(x, k, stride, pad):
    N, H, W, C = x.shape
    y = np.zeros((N, size(H, k, stride, pad), size(W, k, stride, pad), C))
    for n, i, j, c in np.ndindex(y.shape):
        y[n, i, j, c] = max(
            padded(x, n, i * stride + p - pad, j * stride + q - pad, c, -math.inf)
            for p in range(k)
            for q in range(k)
        )
    return y


def max_pool_gradient(x, dy, k, stride, pad):
    dx = np.zeros(x.shape)
    for n, i, j, c in np.ndindex(dy.shape):
        places = [(i * stride + p - pad, j * stride + q - pad) for p in range(k) for q in range(k)]
        r, s = max(
            places, key=lambda place: padded(x, n, *place, c, -math.inf)
        )  # the first of equals
        dx[n, r, s, c] += dy[n, i, j, c]
    return dx


def batchnorm(x, gamma, beta, eps):
    C = x.shape[-1]
    y, mean, var = np.zeros(x.shape), np.zeros(C), np.zeros(C)
    for c in range(C):
        values = [float(v) for v in x[..., c].ravel()]
        mean[c] = math.fsum(values) / len(values)
        var[c] = math.fsum((v - mean[c]) ** 2 for v in values) / len(values)
        y[..., c] = gamma[c] * (x[..., c] - mean[c]) / math.sqrt(var[c] + eps) + beta[c]
    return y, mean, var


def batchnorm_gradients(x, gamma, dy, eps):
    """Follow the computational graph backwards, step by step, as on paper."""
    C = x.shape[-1]
    dx, dgamma, dbeta = np.zeros(x.shape), np.zeros(C), np.zeros(C)
    for c in range(C):
        v, g = x[..., c].ravel().astype(float), dy[..., c].ravel().astype(float)
        M, centred = v.size, v - v.mean()
        std = math.sqrt((centred**2).mean() + eps)
        dbeta[c], dgamma[c] = g.sum(), (g * centred / std).sum()
        dxhat = g * gamma[c]
        dstd = -(dxhat * centred).sum() / std**2
        dvar = dstd / (2 * std)
        dcentred = dxhat / std + dvar * 2 * centred / M
        dx[..., c] = (dcentred - dcentred.sum() / M).reshape(dx.shape[:-1])
    return dx, dgamma, dbeta


def window_of(c, n, C):
    """Channels that a window of n around channel c holds."""
    return range(max(0, c - n // 2), min(C - 1, c + n // 2) + 1)


def local_response_norm(x, n, k, alpha, beta):
    C, y = x.shape[-1], np.zeros(x.shape)
    for place in np.ndindex(x.shape):
        total = math.fsum(float(x[(*place[:-1], d)]) ** 2 for d in window_of(place[-1], n, C))
        y[place] = float(x[place]) / (k + alpha * total) ** beta
    return y


def local_response_norm_gradient(x, dy, n, k, alpha, beta):
    """Every y[d] of a pixel, differentiated by every x[c]."""
    C, dx = x.shape[-1], np.zeros(x.shape)
    for place in np.ndindex(x.shape[:-1]):
        a, g = x[place].astype(float), dy[place].astype(float)
        for d in range(C):
            s = k + alpha * math.fsum(a[e] ** 2 for e in window_of(d, n, C))
            dx[place][d] += g[d] / s**beta
            for c in window_of(d, n, C):
                dx[place][c] -= g[d] * a[d] * beta * s ** (-beta - 1) * 2 * alpha * a[c]
    return dx


def places(i, j, k, stride, pad, H, W):
    """Pixels inside the image of window (i, j)."""
    rows = range(i * stride - pad, i * stride - pad + k)
    columns = range(j * stride - pad, j * stride - pad + k)
    return [(r, s) for r in rows for s in columns if 0 <= r < H and 0 <= s < W]


def avg_pool(x, k, stride, pad):
    N, H, W, C = x.shape
    y = np.zeros((N, size(H, k, stride, pad), size(W, k, stride, pad), C))
    for n, i, j, c in np.ndindex(y.shape):
        inside = places(i, j, k, stride, pad, H, W)
        y[n, i, j, c] = math.fsum(x[n, r, s, c] for r, s in inside) / len(inside)
    return y


def avg_pool_gradient(x, dy, k, stride, pad):
    _, H, W, _ = x.shape
    dx = np.zeros(x.shape)
    for n, i, j, c in np.ndindex(dy.shape):
        inside = places(i, j, k, stride, pad, H, W)
        for r, s in inside:
            dx[n, r, s, c] += dy[n, i, j, c] / len(inside)
    return dx


def softmax_cross_entropy(logits, labels):
    dlogits, losses = np.zeros(logits.shape), []
    for n, row in enumerate(logits.astype(float)):
        top = max(row)
        total = math.fsum(math.exp(z - top) for z in row)
        losses.append(math.log(total) + top - row[labels[n]])
        dlogits[n] = [
            (math.exp(z - top) / total - (k == labels[n])) / len(logits) for k, z in enumerate(row)
        ]
    return math.fsum(losses) / len(logits), dlogits


def crop_and_flip(x, rng, pad):
    N, H, W, _ = x.shape
    top, left = rng.integers(0, 2 * pad + 1, (2, N))
    flip = rng.random(N) < 0.5
    y = np.zeros_like(x)
    for n in range(N):
        for h in range(H):
            for w in range(W):
                row = h + top[n] - pad
                column = (W - 1 - w if flip[n] else w) + left[n] - pad
                if 0 <= row < H and 0 <= column < W:
                    y[n, h, w] = x[n, row, column]
    return y
