"""How hard a prompt is within its benchmark: first by its form, then by its words.

Length and digits make prompts harder in every benchmark of reasoning, whatever it is about; words
say more, but of what training has seen alone. Fitted together, the words take what belongs to
length, and an unseen benchmark is judged by words that mean nothing there. So the form is fitted
first, within each benchmark and with each benchmark counting for the root of its size, and words
only explain what is left.
"""

import numpy as np
import scipy.sparse as sparse

from llmr.core.quality.scan import SIZES
from training.labels import Floats
from training.matrix import COUNT_SHARE, RUNS
from training.solve import ridge

FORMS = 3
WORD_SHARE = 0.8  # of what words say; chosen by leaving out whole benchmarks
WORD_PENALTY = 8.0
FORM_PENALTY = 1.0


def basis() -> Floats:
    """Steps to features of form: for each form its presence, its length and its digits as lines."""
    found = np.zeros((sum(SIZES), 3 * FORMS))
    starts = np.cumsum([0, *RUNS])
    for form in range(FORMS):
        length = slice(starts[form], starts[form + 1])
        digits = slice(starts[FORMS + form], starts[FORMS + form + 1])
        found[length, 3 * form] = 1.0
        found[length, 3 * form + 1] = np.linspace(-1.0, 1.0, RUNS[form])
        found[digits, 3 * form + 2] = np.linspace(-1.0, 1.0, RUNS[FORMS + form])
    return found


def ease_layer(
    design: sparse.csr_array, words: int, ease: Floats, weights: Floats, benchmark: Floats
) -> tuple[Floats, Floats]:
    """(weights of each column, bias) for the ease of a prompt within its benchmark.

    Args:
        design: prompts by features: `words` columns of the vocabulary, the steps, their lines.
        words: how many columns the vocabulary has.
        ease: by prompt, in logits, 0 for the mean of its benchmark.
        weights: of each prompt.
        benchmark: number of each prompt's benchmark; below 0 for none.
    """
    steps = design[:, words : words + sum(SIZES)] / COUNT_SHARE
    form = np.asarray(steps @ basis())
    found = _form(form, ease, weights, benchmark)
    rest = ease - form @ found
    vocabulary = design[:, :words]
    own, bias = ridge(vocabulary, rest, weights, WORD_PENALTY)
    layer = np.zeros((design.shape[1], 1))
    layer[:words] = WORD_SHARE * own
    layer[words : words + sum(SIZES), 0] = basis() @ found / COUNT_SHARE
    return layer, WORD_SHARE * bias


def _form(form: Floats, ease: Floats, weights: Floats, benchmark: Floats) -> Floats:
    centred, balanced = form.copy(), np.zeros(len(ease))
    for number in range(int(benchmark.max()) + 1):
        members = benchmark == number
        own = weights[members]
        if own.sum() > 0.0:
            centred[members] -= own @ form[members] / own.sum()
            balanced[members] = own / np.sqrt(own.sum())
    balanced *= weights.sum() / balanced.sum()
    heavy = centred * balanced[:, None]
    square = heavy.T @ centred + FORM_PENALTY * np.eye(form.shape[1])
    return np.asarray(np.linalg.solve(square, heavy.T @ ease))
