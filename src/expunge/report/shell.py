"""What every page of ours needs: assets, a security policy, and data embedded so that nothing in it can run."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

import jinja2
from markupsafe import Markup

from expunge import runfolder
from expunge.report import words

_LONGEST = 1 << 20


def policy(css: str, js: str) -> str:
    """Nothing may load and nothing may run but the style and the script of this page, known by their hashes."""
    style, script = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (css, js))
    return (
        f"default-src 'none'; style-src 'sha256-{style}'; script-src 'sha256-{script}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


def embedded(value: object) -> Markup:
    """JSON that can stand inside a script element: no character in it ends the element or turns its neighbours round.

    >>> print(embedded({"text": "</script>"}))
    {"text":"\\u003c/script\\u003e"}
    """
    text = json.dumps(shown(runfolder.plain(value)), ensure_ascii=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # nosec B704 - escaped above


def shown(value: Any) -> Any:
    """The same with every string fit to be looked at, however deep it lies."""
    if isinstance(value, dict):
        return {shown(key): shown(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [shown(item) for item in value]
    return words.visible(value, _LONGEST) if isinstance(value, str) and not isinstance(value, Markup) else value


def asset(name: str) -> str:
    """A file of report/assets."""
    return (resources.files("expunge.report") / "assets" / name).read_text(encoding="utf-8")


def template(name: str) -> jinja2.Template:
    """A page's template: escapes what it is given, and an unknown name in it is an error."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(asset),
        autoescape=True,
        finalize=shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)
