"""expunge: remove given knowledge from a language model, and prove it.

The names below are loaded when they are first used, so that importing the package is quick and loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.api import (
        evaluate,
        finetune,
        load_model,
        load_recipe,
        load_records,
        run,
        score_tokens,
        token_weights,
        unlearn,
    )
    from expunge.data.records import Annotation, Record, Span
    from expunge.errors import ExpungeError
    from expunge.recipe import Recipe

__version__ = "0.1.0"

__all__ = [
    "Annotation",
    "ExpungeError",
    "Recipe",
    "Record",
    "Span",
    "evaluate",
    "finetune",
    "load_model",
    "load_recipe",
    "load_records",
    "run",
    "score_tokens",
    "token_weights",
    "unlearn",
]

_HOMES = {
    "Annotation": "expunge.data.records",
    "ExpungeError": "expunge.errors",
    "Recipe": "expunge.recipe",
    "Record": "expunge.data.records",
    "Span": "expunge.data.records",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'expunge' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOMES.get(name, "expunge.api")), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
