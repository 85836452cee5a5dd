"""Versions, extras and metadata agree with each other, and the wheel holds what the package needs at run time."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.version import Version

import expunge

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
UNPINNED = {"vllm"}
"""Brings a build of torch of its own, for a GPU, so that no version of it is tested beside the pinned one."""
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(python: str) -> dict[str, Version]:
    """The pinned versions that hold for a Python."""
    found: dict[str, Version] = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"python_version": python}):
                assert requirement.name not in found, f"{requirement.name} is pinned twice for Python {python}"
                (specifier,) = requirement.specifier
                found[normal(requirement.name)] = Version(specifier.version)
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_every_direct_dependency_is_pinned_inside_its_range(python: str) -> None:
    pinned = pins(python)
    for text in [*PROJECT["dependencies"], *(text for extra in EXTRAS.values() for text in extra)]:
        requirement = Requirement(text)
        if normal(requirement.name) not in {"expunge", *UNPINNED}:
            assert pinned[normal(requirement.name)] in requirement.specifier, text


def test_torch_is_pinned_where_no_needless_build_is_pulled() -> None:
    assert {str(pins(python)["torch"]) for python in PYTHONS} == {"2.13.0"}


def test_dependencies_are_open_ranges_for_users() -> None:
    for text in PROJECT["dependencies"]:
        operators = {specifier.operator for specifier in Requirement(text).specifier}
        assert ">=" in operators, text
        assert "==" not in operators, text


def test_versions_agree() -> None:
    assert importlib.metadata.version("expunge") == expunge.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {expunge.__version__}\n" in citation
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{expunge.__version__}]" in changelog or "## [Unreleased]" in changelog
    assert "### Numerics" in changelog


def test_python_versions_agree() -> None:
    classifiers = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)]
    assert tuple(classifiers) == PYTHONS
    assert Marker(f"python_version {PROJECT['requires-python'].split(',')[0].replace('>=', '>= ' + chr(34))}{chr(34)}")


def test_extras_that_errors_name_exist() -> None:
    named = set()
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            call = (
                isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "MissingExtraError"
            )
            if call and len(node.args) == 2 and isinstance(node.args[1], ast.Constant):
                named.add(node.args[1].value)
    assert named <= set(EXTRAS), named - set(EXTRAS)


def test_licence_is_the_plain_text() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert text.lstrip().startswith("Apache License\n")
    assert "[name of copyright owner]" in text


def test_console_script_and_type_marker_are_there() -> None:
    scripts = importlib.metadata.entry_points(group="console_scripts", name="expunge")
    assert [script.value for script in scripts] == ["expunge.cli:main"]
    assert (ROOT / "src" / "expunge" / "py.typed").is_file()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stdout + made.stderr
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_whole_package_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = {
        file.relative_to(ROOT / "src").as_posix()
        for file in (ROOT / "src" / "expunge").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    assert package <= names
    other = {name for name in names if not name.startswith("expunge/")}
    assert all(name.startswith(f"expunge-{expunge.__version__}.dist-info/") for name in other)
    assert any(name.endswith("licenses/LICENSE") for name in other)
