"""The comparison of arms as the page shows it: a table that sorts by any column, and the same as files."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from expunge.report.collect import View


@dataclass(frozen=True)
class ArmCell:
    """One number of an arm in words; `value` is what the column sorts by, `same`: not distinguishable."""

    value: float
    shown: str
    interval: str
    verdict: str = ""
    same: bool = False


@dataclass(frozen=True)
class ArmRow:
    """An arm; rows of one `family`, a method and its controls, stay together when the table is sorted."""

    name: str
    family: int
    control: bool
    cells: tuple[ArmCell | None, ...]


@dataclass(frozen=True)
class Export:
    """The table as a file."""

    label: str
    file: str
    kind: str
    text: str

    @property
    def link(self) -> str:
        """The file as a data: URI: a download that needs no server and no script.

        >>> Export("CSV", "a.csv", "text/csv", "a,b").link
        'data:text/csv;charset=utf-8;base64,YSxi'
        """
        return f"data:{self.kind};charset=utf-8;base64,{base64.b64encode(self.text.encode()).decode()}"


@dataclass(frozen=True)
class ArmTable:
    """Arms in rows, metrics in columns, `legend` below."""

    columns: tuple[str, ...]
    rows: tuple[ArmRow, ...]
    legend: str
    exports: tuple[Export, ...]


Comparing = Callable[[Sequence[View]], ArmTable]
"""How views become the table. The page asks for it after names were redacted, so that no export has others."""
