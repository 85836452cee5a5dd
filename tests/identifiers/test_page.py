"""The page on identifiers tells the truth: its plugin works, its specs can be built."""

from __future__ import annotations

import re
from pathlib import Path

from expunge import registry
from expunge.data.records import Record
from expunge.identifiers import build

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "identifiers.md").read_text(encoding="utf-8")


def test_the_plugin_of_the_page_works(tmp_path: Path) -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "class Numbers" in block)
    file = tmp_path / "numbers_plugin.py"
    file.write_text(code, encoding="utf-8")
    registry.load_plugin(file)
    try:
        record = Record("r", "", "Born in 1956, she wrote 12 books.")
        (finding,) = build("numbers").identify([record])
        assert [record.answer[span.start : span.end] for span in finding.spans] == ["1956,", "12"]
    finally:
        registry._METHODS["identifier"].pop("numbers")


def test_the_specs_of_the_page_can_be_built(tmp_path: Path) -> None:
    specs = re.findall(r"--with \"?([\w-]+:[^\s\"]+)", PAGE)
    assert len(specs) == 5
    for spec in [*specs, "masked-lm:words=whitespace,pieces=single"]:
        assert str(build(spec)).startswith(spec.partition(":")[0])


def test_every_identifier_is_on_the_page() -> None:
    for name in registry.names("identifier"):
        assert f"`{name}" in PAGE
