"""What the design promises about the code itself: what is imported when, sizes, no global randomness, the surface."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "expunge"
FILES = sorted(SOURCE.rglob("*.py"))
HEAVY = ("torch", "transformers", "datasets", "accelerate", "scipy", "pyarrow", "matplotlib")
OPTIONAL = {"peft": 1, "matplotlib": 1, "openai": 1, "presidio_analyzer": 1, "lm_eval": 1, "spacy": 2}
"""How many modules may import each: one, but for spaCy, whose files and whose pipelines are two things."""
FILE_LINES, FUNCTION_LINES = 500, 80
SHADOWING = ("types", "select", "selectors", "token", "statistics", "profile")

SURFACE = [
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


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)


@functools.cache
def trees() -> list[tuple[Path, ast.Module]]:
    return [(file.relative_to(ROOT), ast.parse(file.read_text(encoding="utf-8"))) for file in FILES]


def imported(tree: ast.AST) -> set[str]:
    """The top-level packages that a tree imports."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"]])
def test_help_loads_nothing_heavy_and_is_quick(arguments: list[str]) -> None:
    code = (
        f"import sys, time; sys.argv = ['expunge', *{arguments!r}]\n"
        "import expunge\n"
        "from expunge.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules], time.process_time())"
    )
    loaded, _, seconds = python(code).stdout.rpartition("LOADED ")[2].rpartition(" ")
    assert loaded == "[]"
    assert float(seconds) < 0.8  # 0.3 s on an idle core; the rest is for a busy machine


def test_files_and_functions_stay_small() -> None:
    long_files = {str(f.relative_to(ROOT)): n for f in FILES if (n := f.read_text("utf-8").count("\n")) > FILE_LINES}
    assert not long_files
    long_functions = {
        f"{file}:{node.name}": node.end_lineno - node.lineno + 1
        for file, tree in trees()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.end_lineno is not None
        if node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    }
    assert not long_functions


def test_no_global_random_state() -> None:
    """No global generator is drawn from, and torch's is seeded only where it is put back as it was."""
    found = []
    for file, tree in trees():
        forked = [
            node for node in ast.walk(tree) if isinstance(node, ast.With) and "fork_rng" in ast.unparse(node.items[0])
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                contained = any(block.lineno <= node.lineno <= (block.end_lineno or 0) for block in forked)
                if _touches_global_randomness(node) and not contained:
                    found.append(f"{file}:{node.lineno}: {ast.unparse(node.func)}")
    assert not found


def _touches_global_randomness(call: ast.Call) -> bool:
    module, _, name = ast.unparse(call.func).rpartition(".")
    if module in ("np.random", "numpy.random"):
        return name not in ("default_rng", "Generator", "SeedSequence")
    if module == "random":
        return name not in ("Random", "SystemRandom")
    if module in ("torch", "torch.random", "torch.cuda", "torch.mps", "torch.default_generator"):
        drawn = name in ("rand", "randn", "randint", "randperm", "bernoulli", "multinomial", "normal")
        given = any(keyword.arg == "generator" for keyword in call.keywords)
        return name in ("manual_seed", "manual_seed_all", "seed") or (drawn and not given)
    return False


@pytest.mark.parametrize(
    ("code", "touches"),
    [
        ("torch.manual_seed(0)", True),
        ("torch.cuda.manual_seed_all(0)", True),
        ("torch.Generator().manual_seed(0)", False),
        ("torch.rand(3)", True),
        ("torch.rand(3, generator=g)", False),
        ("np.random.default_rng(0).choice(3)", False),
        ("np.random.choice(3)", True),
        ("random.Random(0).random()", False),
        ("random.shuffle(x)", True),
    ],
)
def test_the_search_for_global_randomness_finds_it(code: str, touches: bool) -> None:
    calls = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Call)]
    assert any(_touches_global_randomness(call) for call in calls) == touches


def test_no_probing_no_pass_through_no_prints() -> None:
    found = []
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id == "hasattr":
                    found.append(f"{file}:{node.lineno}: hasattr")
                if node.func.id == "print" and file.name not in ("cli.py", "progress.py"):
                    found.append(f"{file}:{node.lineno}: print")
            if isinstance(node, ast.FunctionDef) and node.args.kwarg and node.args.vararg:
                wraps = any("functools.wraps" in ast.unparse(decorator) for decorator in node.decorator_list)
                found += [] if wraps else [f"{file}:{node.lineno}: *args and **kwargs"]
    assert not found


def test_optional_libraries_are_imported_in_one_module_each() -> None:
    packages = {str(file): imported(tree) for file, tree in trees()}
    for library, modules in OPTIONAL.items():
        users = [file for file, names in packages.items() if library in names]
        assert len(users) <= modules, f"{library}: {users}"


def test_optional_libraries_are_imported_inside_functions() -> None:
    for file, tree in trees():
        at_top = ast.Module([node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
        assert not imported(at_top) & set(OPTIONAL), file


def test_no_module_shadows_the_standard_library() -> None:
    assert not [str(f) for f in FILES if f.stem in SHADOWING]


def test_every_module_and_public_function_says_what_comes_out() -> None:
    silent = [str(file) for file, tree in trees() if not ast.get_docstring(tree) and tree.body]
    for file, tree in trees():
        for node in tree.body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                silent.append(f"{file}:{node.lineno} {node.name}")
    assert not silent


def test_the_public_surface_is_what_is_listed_here() -> None:
    import expunge

    assert sorted(expunge.__all__) == SURFACE
    for name in SURFACE:
        assert getattr(expunge, name) is not None


def test_nothing_names_the_place_it_was_made_in() -> None:
    words = ["/wo" + "rk/", "/ro" + "ot/", "CE" + "O"]
    files = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=False, cwd=ROOT).stdout.split(
        "\n"
    )
    found = []
    for name in filter(None, files):
        file = ROOT / name
        if file.suffix in (".py", ".md", ".yaml", ".toml", ".txt", ".cff", "") and file.is_file():
            text = file.read_text(encoding="utf-8", errors="replace")
            found += [f"{name}: {word}" for word in words if word in text]
    assert not found
