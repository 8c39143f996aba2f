"""Two solvers over sparse rows: weighted ridge, and a softmax with a ridge."""

import numpy as np
import scipy.sparse as sparse
from scipy.optimize import minimize

from training.labels import Floats

MOST_STEPS = 80
CLASS_STEPS = 40


def ridge(
    design: sparse.csr_array, targets: Floats, weights: Floats, penalty: float
) -> tuple[Floats, Floats]:
    """(weights by column, bias) of a weighted ridge for each target; conjugate gradients.

    Args:
        design: prompts by features.
        targets: prompts by outputs.
        weights: of each prompt, or of each prompt and output.
        penalty: on the squares of what is found, the bias apart.
    """
    y = targets.reshape(len(targets), -1)
    w = np.broadcast_to(weights.reshape(len(weights), -1), y.shape)
    bias = (w * y).sum(0) / np.maximum(w.sum(0), 1e-9)
    turned = design.T.tocsr()
    found = np.zeros((design.shape[1], y.shape[1]))
    rest = turned @ (w * (y - bias))
    step = rest.copy()
    size = (rest * rest).sum(0)
    for _ in range(MOST_STEPS):
        image = turned @ (w * (design @ step)) + penalty * step
        length = size / np.maximum((step * image).sum(0), 1e-30)
        found += length * step
        rest -= length * image
        following = (rest * rest).sum(0)
        step = rest + following / np.maximum(size, 1e-30) * step
        size = following
    return found, bias


def classes(
    design: sparse.csr_array, labels: Floats, weights: Floats, penalty: float
) -> tuple[Floats, Floats]:
    """(weights by column, bias) of a softmax over one-hot labels;
    quasi-Newton."""
    turned = design.T.tocsr()
    bias = np.log((weights[:, None] * labels).sum(0) / weights.sum() + 1e-3)
    shape = (design.shape[1], labels.shape[1])

    def loss(flat: Floats) -> tuple[float, Floats]:
        found = flat.reshape(shape)
        shares = _softmax(design @ found + bias)
        value = -float((weights * np.log((shares * labels).sum(1) + 1e-12)).sum())
        gradient = turned @ (weights[:, None] * (shares - labels)) + penalty * found
        return value + 0.5 * penalty * float(flat @ flat), gradient.ravel()

    options = {"maxiter": CLASS_STEPS, "maxcor": 10}
    best = minimize(loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options=options)
    return best.x.reshape(shape), bias


def _softmax(values: Floats) -> Floats:
    powers = np.exp(values - values.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))
