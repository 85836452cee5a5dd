"""The pages agree with the package: links lead somewhere, verbs, options and presets exist, recipes are valid."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from expunge import papers, presets, recipe, registry
from expunge.cli import app
from expunge.plainyaml import parse
from expunge.resolve import method_faults

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"(?:`|^\$ |^#   )expunge ([a-z][a-z-]*)\b", re.MULTILINE)
VERBS = set(typer.main.get_group(app).commands)


def blocks(language: str) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for found, body in BLOCK.findall(page.read_text(encoding="utf-8")):
            if found == language:
                yield page, body


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", BLOCK.sub("", page.read_text(encoding="utf-8"))):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), target


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert not [
        page.name for page in (ROOT / "docs").glob("*.md") if page.name != "index.md" and page.name not in index
    ]


def test_verbs_in_pages_and_recipes_exist() -> None:
    files = [*PAGES, *(ROOT / "recipes").glob("*.yaml")]
    for file in files:
        text = file.read_text(encoding="utf-8")
        lines = "\n".join(body for _, body in BLOCK.findall(text))
        for verb in [*COMMAND.findall(text), *re.findall(r"^(?:\$ )?expunge ([a-z-]+)", lines, re.MULTILINE)]:
            assert verb in VERBS, f"{file.name}: there is no verb 'expunge {verb}'"


def test_every_verb_is_described() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert not {verb for verb in VERBS if f"`{verb}" not in page}


def test_options_in_commands_exist() -> None:
    commands = typer.main.get_group(app).commands
    for page, body in [*blocks("console"), *blocks("")]:
        for line in body.splitlines():
            found = re.match(r"\$ expunge ([a-z]+)(?: ([a-z][a-z-]*))?(.*)", line)
            if found is None or found[1] not in commands:
                continue
            verb = commands[found[1]]
            verb = verb.commands[found[2] or ""] if isinstance(verb, typer.core.TyperGroup) else verb
            known = {option for parameter in verb.params for option in parameter.opts}
            for word in shlex.split(found[3].partition("#")[0] if "'" not in found[3] else found[3]):
                assert not word.startswith("--") or "=" in word or word in known, f"{page.name}: {line}"


def test_the_index_of_papers_is_up_to_date() -> None:
    assert (ROOT / "docs" / "paper.md").read_text(encoding="utf-8") == papers.page(), (
        "write it anew: python -m expunge.papers > docs/paper.md"
    )


def test_the_index_says_of_every_method_where_it_is_from() -> None:
    text = papers.page()
    for name, preset in presets.PRESETS.items():
        assert f"| `{name}` |" in text
        assert preset.parity
    for kind in ("objective", "scorer", "selector"):
        for name in registry.names(kind):
            assert papers.sections(registry.get(kind, name)).get("Source"), name
    assert not {name.lower() for name, *_ in papers.MISSING} & set(presets.PRESETS), "it is there after all"


def test_every_preset_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert not [name for name in presets.PRESETS if f"`{name}`" not in text]


def test_recipes_in_pages_are_valid() -> None:
    seen = 0
    for page, body in blocks("yaml"):
        tree: dict[str, Any] = parse(body)
        found = recipe.load(tree, also=method_faults)
        assert found, page
        seen += 1
    assert seen >= 4


def test_python_in_pages_compiles() -> None:
    for page, body in blocks("python"):
        if not body.startswith(">>>"):
            compile(body, f"a block of {page.name}", "exec")


def test_the_scorer_of_contributing_works(tmp_path: Path) -> None:
    body = next(body for page, body in blocks("python") if page.name == "CONTRIBUTING.md")
    file = tmp_path / "surprise.py"
    file.write_text(body, encoding="utf-8")
    import doctest
    import importlib.util
    import sys

    from expunge import registry

    registry.load_plugin(file)
    scorer = registry.build("scorer", "surprise:power=2")
    assert str(scorer) == "surprise:power=2.0"
    module = sys.modules[type(scorer).__module__]
    assert doctest.testmod(module).attempted == 3
    assert doctest.testmod(module).failed == 0
    assert importlib.util.find_spec("expunge") is not None
