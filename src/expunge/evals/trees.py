"""Several answers to one prompt in one row: the prompt once, the answers as branches that do not see each other.

A question with seven answers is read once instead of seven times, at equal numbers: a mask lets every token attend to
the prompt and to its own branch alone, and positions go on from the prompt in every branch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from expunge.core import IGNORE
from expunge.data.encode import Encoded
from expunge.lm import LM, backbone_of

ROW_TOKENS = 192
"""Longer rows share more but pay for attention over branches that are masked away."""


@dataclass(frozen=True)
class Tree:
    """A row: its first `shared` tokens belong to all `members` (indices of encoded answers), the rest to each."""

    shared: int
    members: tuple[int, ...]
    length: int


def usable(lm: LM) -> bool:
    """True if the model's attention takes any mask and any positions: full attention, not a flash kernel, no window."""
    config = lm.model.config.get_text_config()
    settings = config.to_dict()
    layers = settings.get("layer_types") or []
    full = all(layer == "full_attention" for layer in layers) and not (not layers and settings.get("sliding_window"))
    rotary = settings.get("rope_parameters") is not None or settings.get("rope_theta") is not None
    return full and rotary and config._attn_implementation in ("sdpa", "eager")


def plan(encoded: Sequence[Encoded], prompts: Sequence[str], indices: Sequence[int]) -> list[Tree]:
    """Rows of answers that follow each other in `indices` and have the same entry in `prompts`.

    What is shared ends before the first position that predicts an answer token, so that every prediction is made in a
    branch of its own.
    """
    trees = []
    for group in _groups(prompts, indices):
        shared = _common([encoded[index] for index in group])
        longest = max(len(encoded[index]) for index in group)
        members: list[int] = []
        length = shared
        for index in group:
            own = len(encoded[index]) - shared
            if members and length + own > max(ROW_TOKENS, 2 * longest):
                trees.append(Tree(shared, tuple(members), length))
                members, length = [], shared
            members.append(index)
            length += own
        trees.append(Tree(shared, tuple(members), length))
    return trees


def hidden(lm: LM, encoded: Sequence[Encoded], trees: Sequence[Tree]) -> tuple[Tensor, Tensor]:
    """Final hidden states (N, D) and targets (N,) of the scored tokens of a batch of rows, member after member."""
    shape = (len(trees), max(tree.length for tree in trees))
    ids = np.full(shape, lm.pad_id, np.int64)
    targets = np.full(shape, IGNORE, np.int64)
    positions = np.zeros(shape, np.int64)
    branch = np.full(shape, -1, np.int64)
    for row, tree in enumerate(trees):
        ids[row, : tree.shared] = encoded[tree.members[0]].input_ids[: tree.shared]
        positions[row, : tree.shared] = np.arange(tree.shared)
        branch[row, : tree.shared] = 0
        start = tree.shared
        for number, index in enumerate(tree.members, 1):
            item = encoded[index]
            place = slice(start, start + len(item) - tree.shared)
            ids[row, place] = item.input_ids[tree.shared :]
            targets[row, place] = item.targets[tree.shared :]
            positions[row, place] = np.arange(tree.shared, len(item))
            branch[row, place] = number
            start = place.stop
    states = backbone_of(lm.model)(
        input_ids=torch.from_numpy(ids).to(lm.device),
        attention_mask=_mask(torch.from_numpy(branch).to(lm.device), lm.model.dtype),
        position_ids=torch.from_numpy(positions).to(lm.device),
        use_cache=False,
    ).last_hidden_state
    aligned = torch.from_numpy(targets).to(lm.device)
    scored = aligned != IGNORE
    return states[scored], aligned[scored]


def _mask(branch: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, 1, T, T) additive: 0 where a token may look, the lowest number elsewhere. Padding looks at padding."""
    allowed = ((branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)).tril()
    return torch.zeros(allowed.shape, dtype=dtype, device=branch.device).masked_fill_(~allowed, torch.finfo(dtype).min)[
        :, None
    ]


def _groups(prompts: Sequence[str], indices: Sequence[int]) -> Iterator[list[int]]:
    group: list[int] = []
    for index in indices:
        if group and prompts[index] != prompts[group[0]]:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def _common(items: Sequence[Encoded]) -> int:
    """How many tokens all items begin with, at most up to the first that predicts an answer token."""
    end = min(int(np.flatnonzero(item.targets != IGNORE)[0]) for item in items)
    stacked = np.stack([item.input_ids[:end] for item in items])
    differs = np.flatnonzero((stacked != stacked[0]).any(0))
    return int(differs[0]) if len(differs) else end
