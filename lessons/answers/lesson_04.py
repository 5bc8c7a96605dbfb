"""Lesson 4, for the weekend: batch norm's backward pass, along nine steps and in closed form.

`batchnorm_backward` and `nine_steps` are model answers. Each `wrong_` function is a usual wrong
one.
"""

EXERCISE = "batchnorm_backward"


def batchnorm_backward(dy, cache):
    """The closed form: two means for each channel."""
    xhat, gamma, inv_std = cache
    axes = tuple(range(dy.ndim - 1))
    dbeta = dy.sum(axes)
    dgamma = (dy * xhat).sum(axes)
    M = dy.size // dy.shape[-1]
    return gamma * inv_std * (dy - dbeta / M - xhat * dgamma / M), dgamma, dbeta


def nine_steps(dy, cache):
    """The forward's nine steps, read from the last to the first.

    1 mean, 2 centred = x - mean, 3 square, 4 var, 5 std = sqrt(var + eps), 6 inv_std = 1 / std,
    7 xhat = centred * inv_std, 8 scaled = gamma * xhat, 9 y = scaled + beta
    """
    xhat, gamma, inv_std = cache
    axes = tuple(range(dy.ndim - 1))
    M = dy.size // dy.shape[-1]
    centred = xhat / inv_std
    dbeta = dy.sum(axes)  # 9
    dgamma = (dy * xhat).sum(axes)  # 8
    dxhat = dy * gamma
    dinv_std = (dxhat * centred).sum(axes)  # 7
    dcentred = dxhat * inv_std
    dstd = -dinv_std * inv_std**2  # 6
    dvar = dstd * inv_std / 2  # 5
    dsquare = dvar / M  # 4: each of the M squares has the same share
    dcentred = dcentred + 2 * centred * dsquare  # 3
    dmean = -dcentred.sum(axes)  # 2
    return dcentred + dmean / M, dgamma, dbeta  # 1


def wrong_statistics_as_constants(dy, cache):
    """Right in evaluation mode; in training, mean and variance depend on x too."""
    _, gamma, inv_std = cache
    _, dgamma, dbeta = batchnorm_backward(dy, cache)
    return gamma * inv_std * dy, dgamma, dbeta


def wrong_mean_over_images_only(dy, cache):
    """M = N, which is right for a linear layer and wrong for images."""
    xhat, gamma, inv_std = cache
    _, dgamma, dbeta = batchnorm_backward(dy, cache)
    N = len(dy)
    return gamma * inv_std * (dy - dbeta / N - xhat * dgamma / N), dgamma, dbeta


def wrong_gamma_forgotten(dy, cache):
    """Right at the start of training, where gamma is 1."""
    xhat, gamma, inv_std = cache
    return batchnorm_backward(dy, (xhat, gamma * 0 + 1, inv_std))
