"""Spec text <-> method object. A method registers itself with a decorator; nothing here imports torch.

Grammar: `name:key=value,key=value`. Scores add and multiply, `0.5*masking+0.5*frequency*novel`, and the parts of a sum
may be brought to ranks or z-scores instead of [0, 1], `rank(masking+entropy)`; selectors chain,
`threshold:k=0 > expand:c=2`. A value that holds a sign of the grammar (, + * > or a bracket) stands in double quotes, a
double quote inside it twice: `regex:pattern="\\d{2,4}"`. `build(kind, str(method)) == method`.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import ConfigDict, TypeAdapter, ValidationError

from expunge.errors import MethodError, unknown

Kind = Literal["scorer", "selector", "objective", "identifier", "attack"]
KINDS: tuple[Kind, ...] = ("scorer", "selector", "objective", "identifier", "attack")
Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Ge(0), Le(1)]
Spec = str | Mapping[str, Any]

_HOMES: Mapping[Kind, str] = {
    "scorer": "expunge.scorers",
    "selector": "expunge.weighting",
    "objective": "expunge.objectives",
    "identifier": "expunge.identifiers",
    "attack": "expunge.attacks",
}
_METHODS: dict[Kind, dict[str, type]] = {kind: {} for kind in KINDS}
Sign = Literal["+", "*", ">"]
_COMBINERS: dict[Sign, Callable[..., Any]] = {}
_PLUGIN_GROUP = "expunge.methods"
_PAIR = re.compile(r'\s*([^=,]*?)\s*=\s*("(?:[^"]|"")*"(?=\s*(?:,|$))|[^,]*)\s*(?:,|$)')
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_PLUS = re.compile(r'"(?:[^"]|"")*"|(?<![\d.][eE])(\+)')
_TIMES = re.compile(r'"(?:[^"]|"")*"|(\*)')
_THEN = re.compile(r'"(?:[^"]|"")*"|(>)')
_SCALED = re.compile(r"(rank|zscore)\s*\((.*)\)", re.DOTALL)
_M = TypeVar("_M", bound=type)


def method(kind: Kind, name: str) -> Callable[[_M], _M]:
    """Registers a frozen dataclass as `kind` under `name`; gives it checked fields and its spec as `str()`."""

    def register(cls: _M) -> _M:
        if not (dataclasses.is_dataclass(cls) and cls.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            raise TypeError(f"{kind} '{name}' must be a frozen dataclass; {cls.__name__} is not")
        previous = _METHODS[kind].get(name)
        if previous is not None and previous.__module__ != cls.__module__:
            raise MethodError(f"{kind} '{name}' is defined twice: in {previous.__module__} and in {cls.__module__}")
        _check_fields_on_init(cls, kind, name)
        cls.__str__ = _spec_text  # type: ignore[method-assign]
        cls.spec_name = name  # type: ignore[attr-defined]
        _METHODS[kind][name] = cls
        return cls

    return register


def combiner(sign: Sign) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers what a sign between methods makes of them: the sum and product of scorers, the chain of selectors."""

    def register(factory: Callable[..., Any]) -> Callable[..., Any]:
        _COMBINERS[sign] = factory
        return factory

    return register


def names(kind: Kind) -> list[str]:
    """The registered names of a kind, sorted."""
    _load(kind)
    return sorted(_METHODS[kind])


def get(kind: Kind, name: str) -> type:
    """The class behind a name; MethodError with a suggestion if there is none."""
    _load(kind)
    if name not in _METHODS[kind]:
        raise MethodError(unknown(kind, name, _METHODS[kind]))
    return _METHODS[kind][name]


def build(kind: Kind, spec: Spec) -> Any:
    """The method a spec describes: text, or a mapping {name: ..., key: value}."""
    if isinstance(spec, Mapping):
        settings = dict(spec)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise MethodError(f"a {kind} given as a mapping needs the key 'name'; found {sorted(map(str, spec))}")
        return _make(kind, name, settings)
    text = str(spec).strip()
    if not text:
        raise MethodError(f"empty {kind} spec")
    if kind == "scorer":
        return _score(text)
    if kind == "selector" and ">" in text:
        _load(kind)
        return _COMBINERS[">"](tuple(_single(kind, part) for part in _cut(text, _THEN)))
    return _single(kind, text)


def mapping(kind: Kind, spec: Spec) -> dict[str, Any]:
    """One method's spec as a mapping {name: ..., key: value}; values of a text stay text.

    >>> mapping("selector", "top:r=0.3")
    {'name': 'top', 'r': '0.3'}
    """
    if isinstance(spec, Mapping):
        return dict(spec)
    name, _, rest = spec.strip().partition(":")
    settings: dict[str, Any] = {"name": name.strip()}
    at = 0
    while at < len(rest):
        if rest[at] in ", ":
            at += 1
            continue
        pair = _PAIR.match(rest, at)
        if pair is None or pair[1] == "name":
            found = rest[at:].partition(",")[0].strip()
            raise MethodError(f"{kind} '{spec.strip()}': expected key=value after ':', found '{found}'")
        settings[pair[1]] = _unquoted(pair[2].strip())
        at = pair.end()
    return settings


def load_plugin(path: str | Path) -> None:
    """Imports a Python file so that the methods it defines are registered."""
    file = Path(path)
    if not file.is_file():
        raise MethodError(f"plugin '{path}' is not a file")
    name = f"expunge_plugin_{file.stem}"
    loader_spec = importlib.util.spec_from_file_location(name, file)
    if file.suffix != ".py" or loader_spec is None or loader_spec.loader is None:
        raise MethodError(f"plugin '{path}' is not a Python file")
    module = importlib.util.module_from_spec(loader_spec)
    sys.modules[name] = module
    loader_spec.loader.exec_module(module)


def fields(cls: type) -> list[tuple[str, str, Any]]:
    """(name, type, default) of each setting of a method; `dataclasses.MISSING` where it must be given."""
    return [(f.name, str(f.type), f.default) for f in dataclasses.fields(cls)]


@functools.cache
def _load(kind: Kind) -> None:
    home = importlib.import_module(_HOMES[kind])
    for info in pkgutil.iter_modules(getattr(home, "__path__", [])):
        importlib.import_module(f"{home.__name__}.{info.name}")
    for entry in importlib.metadata.entry_points(group=_PLUGIN_GROUP):
        entry.load()


def _score(text: str) -> Any:
    """A scorer, a sum of them (its parts scaled as named), or a product."""
    _load("scorer")
    if scaled := _SCALED.fullmatch(text):
        return _COMBINERS["+"](tuple((c, _product(part)) for c, part in _sum_parts(scaled[2])), scaled[1])
    parts = _sum_parts(text)
    if len(parts) > 1 or parts[0][0] != 1.0:
        return _COMBINERS["+"](tuple((c, _product(part)) for c, part in parts))
    return _product(parts[0][1])


def _product(text: str) -> Any:
    factors = [_single("scorer", factor) for factor in _cut(text, _TIMES)]
    return _COMBINERS["*"](tuple(factors)) if len(factors) > 1 else factors[0]


def _single(kind: Kind, text: str) -> Any:
    settings = mapping(kind, text)
    return _make(kind, settings.pop("name"), settings)


def _quoted(value: Any) -> str:
    """The value as a spec says it: in double quotes where a sign of the grammar or its edges would be misread."""
    text = str(value)
    misread = isinstance(value, str) and (not text or any(sign in text for sign in ',"+*>()') or text != text.strip())
    return '"' + text.replace('"', '""') + '"' if misread else text


def _unquoted(text: str) -> str:
    return text[1:-1].replace('""', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text


def _sum_parts(text: str) -> list[tuple[float, str]]:
    """'0.5*a+0.5*b:t=2' -> [(0.5, 'a'), (0.5, 'b:t=2')]. A '+' inside a number such as 1e+5 does not split."""
    parts = []
    for piece in _cut(text, _PLUS):
        match = re.fullmatch(rf"\s*({_NUMBER})\s*\*\s*(.+)", piece)
        parts.append((float(match[1]), match[2].strip()) if match else (1.0, piece.strip()))
    return parts


def _cut(text: str, separator: re.Pattern[str]) -> list[str]:
    """The text in pieces at each match of the separator's group 1; what stands in double quotes is not looked at."""
    pieces, start = [], 0
    for found in separator.finditer(text):
        if found[1]:
            pieces.append(text[start : found.start()])
            start = found.end()
    return [*pieces, text[start:]]


def _make(kind: Kind, name: str, settings: Mapping[str, Any]) -> Any:
    cls = get(kind, name)
    known = {f.name for f in dataclasses.fields(cls) if f.init}
    for key in settings:
        if key not in known:
            if not known:
                raise MethodError(f"{kind} '{name}' has no settings; found '{key}'")
            raise MethodError(unknown(f"setting of {kind} '{name}'", key, known))
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.init and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        if f.name not in settings
    ]
    if missing:
        raise MethodError(f"{kind} '{name}' needs the setting '{missing[0]}': write {name}:{missing[0]}=...")
    return cls(**settings)


def _check_fields_on_init(cls: type, kind: Kind, name: str) -> None:
    """Makes the constructor convert and check what it is given, before the dataclass's own `__post_init__` runs."""
    assign = cls.__init__  # type: ignore[misc]
    signature = inspect.signature(assign)

    @functools.wraps(assign)
    def checked(self: Any, *args: Any, **settings: Any) -> None:
        given = signature.bind(self, *args, **settings)
        hints = typing.get_type_hints(cls, include_extras=True)
        for key, value in list(given.arguments.items())[1:]:
            try:
                given.arguments[key] = _adapter(hints[key]).validate_python(value)
            except ValidationError as error:
                fault = error.errors()[0]["msg"]
                raise MethodError(f"{kind} '{name}': {key}: {fault} (got {value!r})") from None
        assign(*given.args, **given.kwargs)

    cls.__init__ = checked  # type: ignore[misc]


def _adapter(hint: Any) -> TypeAdapter[Any]:
    if inspect.isclass(hint) and not issubclass(hint, (str, int, float, bool)):
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    return TypeAdapter(hint, config=ConfigDict(allow_inf_nan=False))


def _spec_text(self: Any) -> str:
    settings = []
    for f in dataclasses.fields(self):
        value = getattr(self, f.name)
        if value != f.default:
            settings.append(f"{f.name}={_quoted(value)}")
    name: str = self.spec_name
    return name + (":" + ",".join(settings) if settings else "")
