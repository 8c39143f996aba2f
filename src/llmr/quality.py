"""Quality of answers before they are given: `predict`, for evaluation and for other programs.

`priors` are what a leaderboard says of each model on the benchmark that the prompts come from. So
the prompts of one call are what is known of that benchmark: its usual difficulty is the mean over
them, shrunk to that of the training prompts, which is all there is for a single prompt.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from llmr import bundle
from llmr.core.quality.task import Task, stated, task_of

Prompt = str | Sequence[Mapping[str, Any]]


def predict(
    prompts: Sequence[Prompt],
    *,
    models: Sequence[str],
    priors: Mapping[str, float],
    prices: Mapping[str, Any] | None = None,
) -> list[dict[str, float]]:
    """For each prompt the probability, 0..1, that each model's answer is good.

    Args:
        prompts: texts, or `messages` lists of the OpenAI form.
        models: the names asked for. Those that training saw outcomes of have factors of their own;
            of any other only its prior is known.
        priors: quality in 0..1 by name; a model without one gets the mean of the others.
        prices: not needed for quality; taken so that every predictor can be called alike.
    """
    for model, prior in priors.items():
        if not 0.0 <= prior <= 1.0:
            raise ValueError(f"the prior of {model} must be in 0..1, not {prior}")
    tasks = [task_of_prompt(prompt) for prompt in prompts]
    return bundle.known().predict(tasks, models, priors)


def task_of_prompt(prompt: Prompt) -> Task:
    """What a prompt asks for, be it a text or a conversation."""
    if isinstance(prompt, str):
        return Task(text=stated(prompt))
    return task_of(prompt)
