"""Sequences of unlike length side by side in fewer rows, so that no work goes into padding.

Every row is as long as the longest sequence; shorter ones share rows, each seeing itself alone and counting its
positions from 0. Where no two fit one row, nothing is packed: such a batch has no padding worth the trouble.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Packed:
    """Where the tokens of a padded batch (B, T) stand in `rows` rows of the same width: `place` (B, T) flat indices.

    0 at padding. `segment` (rows, T) numbers the sequences of a row, each other than its neighbours, -1 at padding;
    `positions` (rows, T) count from 0 in each.
    """

    place: Tensor
    segment: Tensor
    positions: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> Packed:
        """The packing of a batch whose rows are filled from the left, as `mask` (B, T) says.

        >>> packed = Packed.of(torch.tensor([[1, 0, 0], [1, 1, 1], [1, 1, 0]], dtype=torch.bool))
        >>> packed.segment.tolist(), packed.positions.tolist()
        ([[1, 1, 1], [2, 2, 0]], [[0, 1, 2], [0, 1, 0]])
        >>> packed.place.tolist()
        [[5, 0, 0], [0, 1, 2], [3, 4, 0]]
        """
        lengths, width = [int(n) for n in mask.sum(1)], mask.shape[1]
        place = torch.zeros(mask.shape, dtype=torch.int64)
        rows = _rows(lengths, width)
        segment = torch.full((len(rows), width), -1)
        positions = torch.zeros((len(rows), width), dtype=torch.int64)
        for row, members in enumerate(rows):
            start = 0
            for member in members:
                span, own = slice(start, start + lengths[member]), torch.arange(lengths[member])
                place[member, : lengths[member]] = row * width + start + own
                segment[row, span] = member
                positions[row, span] = own
                start = span.stop
        return cls(*(x.to(mask.device) for x in (place, segment, positions)))

    @property
    def saves(self) -> bool:
        """True if there are fewer rows than sequences."""
        return len(self.segment) < len(self.place)

    def pack(self, values: Tensor, mask: Tensor) -> Tensor:
        """(rows, T) of a padded batch's values (B, T), 0 where nothing stands."""
        return values.new_zeros(self.segment.numel()).index_put((self.place[mask],), values[mask]).view_as(self.segment)

    def unpack(self, states: Tensor) -> Tensor:
        """(B, T, D) of states (rows, T, D); what stands at padding means nothing."""
        return states.flatten(0, 1)[self.place]

    def attention(self, dtype: torch.dtype) -> Tensor:
        """(rows, 1, T, T) additive: 0 where a token may look, the lowest number elsewhere. Padding looks at padding."""
        allowed = (self.segment[:, :, None] == self.segment[:, None, :]).tril()
        lowest = torch.finfo(dtype).min
        return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, lowest)[:, None]


def takes_any_mask(model: PreTrainedModel) -> bool:
    """True if the model's attention takes any mask and any positions: full attention, no flash kernel, no window."""
    config = model.config.get_text_config()
    settings = config.to_dict()
    layers = settings.get("layer_types") or []
    full = all(layer == "full_attention" for layer in layers) and not (not layers and settings.get("sliding_window"))
    rotary = settings.get("rope_parameters") is not None or settings.get("rope_theta") is not None
    return full and rotary and config._attn_implementation in ("sdpa", "eager")


def _rows(lengths: Sequence[int], width: int) -> list[list[int]]:
    """The sequences of each row: the longest first, each into the first row that has room."""
    rows: list[list[int]] = []
    free: list[int] = []
    for member in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, room in enumerate(free) if room >= lengths[member]), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(width)
        rows[row].append(member)
        free[row] -= lengths[member]
    return rows
