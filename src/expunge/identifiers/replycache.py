"""Replies on disk, keyed by all that decides them: nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from expunge.identifiers.prompt import Message
from expunge.runfolder import replacing


@dataclass(frozen=True)
class ReplyCache:
    """A folder of replies, or nothing if `folder` is None. Files can be read by their owner alone."""

    folder: Path | None

    def get(self, key: str) -> str | None:
        """The reply that was kept, or None; a damaged file counts as none."""
        if self.folder is None:
            return None
        try:
            kept = json.loads(_file(self.folder, key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        reply = kept.get("reply") if isinstance(kept, dict) and kept.get("key") == key else None
        return reply if isinstance(reply, str) else None

    def put(self, key: str, reply: str) -> None:
        """Keeps a reply; a reader sees all of it or nothing."""
        if self.folder is None:
            return
        file = _file(self.folder, key)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with replacing(file) as stream:
            os.fchmod(stream.fileno(), 0o600)
            stream.write(json.dumps({"key": key, "reply": reply}).encode())


def _file(folder: Path, key: str) -> Path:
    return folder / key[:2] / f"{key}.json"


def open_cache(setting: str) -> ReplyCache:
    """The cache that a setting names: '' is the user's cache folder, 'none' is no cache, anything else a folder."""
    if setting == "none":
        return ReplyCache(None)
    if setting:
        return ReplyCache(Path(setting).expanduser())
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return ReplyCache(Path(home) / "expunge" / "chat")


def prompt_key(
    url: str, model: str, parameters: Mapping[str, object], prompt: Sequence[Message] | Sequence[int]
) -> str:
    """SHA-256 of all that decides a reply; the key of the service is no part of it."""
    asked = json.dumps([url, model, dict(parameters), list(prompt)], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(asked.encode()).hexdigest()
