"""Models and tokenizers by folder, or by hub name with its revision after an @, and what tells one from another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from expunge.errors import ModelError

transformers_logging.disable_progress_bar()

_KINDS = (".json", ".safetensors", ".txt", ".model", ".jinja")
NOTES = "training.json"
"""How a model of ours was trained; no part of what it is."""


def identity(name: str) -> str:
    """What decides the numbers of a model: SHA-256 (16 hex digits) of a folder's files, or the hub's commit."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        digest = hashlib.sha256()
        for file in sorted(folder.iterdir()):
            if file.suffix in _KINDS and file.name != NOTES:
                digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
        return digest.hexdigest()[:16]
    place, revision = _place(name)
    with told(name):
        config = AutoConfig.from_pretrained(place, revision=revision, trust_remote_code=False)
    return str(getattr(config, "_commit_hash", None) or name)


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a name or folder; ModelError if it cannot say which characters a token came from."""
    place, revision = _place(name)
    with told(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            place, revision=revision, trust_remote_code=False
        )
    if not tokenizer.is_fast:
        raise ModelError(f"the tokenizer of '{name}' gives no character offsets; take a model with a fast tokenizer.")
    return tokenizer


def load_model(auto: Any, name: str, device: str, **settings: Any) -> Any:
    """The model of a name or folder as the class `auto` makes it, in evaluation mode; pickle files are refused."""
    place, revision = _place(name)
    with told(name):
        model = auto.from_pretrained(
            place, revision=revision, trust_remote_code=False, use_safetensors=True, **settings
        )
    return model.to(device).eval()


def save(folder: Path, model: Any, tokenizer: PreTrainedTokenizerBase, notes: Mapping[str, object]) -> Path:
    """The folder, which now holds model, tokenizer and `training.json` with the notes, readable by its group."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / NOTES).write_text(json.dumps(notes, indent=2) + "\n", encoding="utf-8")
    for file in folder.iterdir():
        if file.is_file():
            file.chmod(0o644)
    return folder


@contextmanager
def told(name: str) -> Iterator[None]:
    """Turns what the library says of a missing or strange model into our words."""
    try:
        yield
    except (OSError, ValueError, ImportError, KeyError) as error:
        folder = Path(name).expanduser()
        found = "a folder" if folder.is_dir() else "no folder here, so looked for on the hub"
        raise ModelError(
            f"model '{name}' ({found}) cannot be loaded: {' '.join(str(error).split())[:300]} "
            "Give the folder of a model; where no hub is reachable, expunge can train a small one (see the page on "
            "identifiers)."
        ) from None


def _place(name: str) -> tuple[str, str | None]:
    """(a folder, None), or the hub's name and the revision that stands after an @."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder), None
    place, _, revision = name.partition("@")
    return place, revision or None
