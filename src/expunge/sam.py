"""Sharpness-aware minimisation: what forgets is differentiated where its loss is worst nearby."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn

from expunge.combine import Apart, Gradient, Split, norm


@dataclass(frozen=True)
class Sam:
    """grad l_f(theta + radius * g / ||g||) in place of g = grad l_f(theta), l_f the terms that forget.

    The norm is over all trained parameters, g over the whole global batch, with each term's factor; the weights of the
    tokens are made anew where the gradient is. All other terms are differentiated at theta, and both meet as
    `method.combine` says. `sam_norm` in the log is ||g||. Costs one more pass over the forget batch, forward and
    backward, and a copy of the parameters during the step.

    Source: SAM (Foret et al., arXiv 2010.01412) for unlearning that resists relearning (Fan et al., ICML 2025,
    arXiv 2502.05374), where it wraps NPO.
    Differs: the radius that was used was not found; there is no default.

    >>> theta = nn.Parameter(torch.tensor([3.0, 4.0]))  # l_f = ||theta||^2 / 2, so g = theta
    >>> apart = Apart([theta], Split((), {"forget": ()}), {"forget": [theta.detach().clone()]})
    >>> report = Sam(radius=1.0)(apart, lambda alone: alone.gradients.update(forget=[theta.detach().clone()]))
    >>> [round(x, 4) for x in apart.gradients["forget"][0].tolist()], theta.tolist(), report
    ([3.6, 4.8], [3.0, 4.0], {'sam_norm': 5.0})
    """

    radius: float

    def __call__(self, apart: Apart, again: Callable[[Apart], object]) -> dict[str, float]:
        """Replaces the forget part of `apart`; `again` adds up the gradients of the split it is given, from anew."""
        split, direction = apart.split, apart.gradients["forget"]
        length = norm(direction)
        chosen = [split.terms[i] for i in split.parts["forget"]]
        alone = Apart(apart.parameters, Split(tuple(chosen), {"forget": tuple(range(len(chosen)))}))
        with _moved(apart.parameters, direction, self.radius / length if length else 0.0):
            again(alone)
        apart.gradients["forget"] = alone.gradients["forget"]
        return {"sam_norm": length}


@contextmanager
def _moved(parameters: Sequence[nn.Parameter], direction: Gradient, factor: float) -> Iterator[None]:
    """Inside, the parameters are `factor` times the direction further on; afterwards what they were, to the bit."""
    before = [p.detach().clone() for p in parameters]
    try:
        with torch.no_grad():
            for parameter, way in zip(parameters, direction, strict=True):
                if way is not None:
                    parameter.add_(way, alpha=factor)
        yield
    finally:
        with torch.no_grad():
            for parameter, old in zip(parameters, before, strict=True):
                parameter.copy_(old)
