"""What tests in every folder share: outside data (skipped where absent) and small real tokenizers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with TOFU, the parity files and a small English model; tests that ask for it skip without it."""
    folder = Path(os.environ.get("EXPUNGE_SHARED", "../shared"))
    folder = folder if folder.is_absolute() else (ROOT / folder).resolve()
    if not (folder / "data").is_dir():
        pytest.skip(f"outside data are not at {folder}; set EXPUNGE_SHARED to their folder")
    return folder


@pytest.fixture(scope="session")
def tokenizers() -> Mapping[str, PreTrainedTokenizerBase]:
    """Small real tokenizers by name: see tests/fixtures/tokenizers.py."""
    from tests.fixtures.tokenizers import MAKERS

    return {name: make() for name, make in MAKERS.items()}
