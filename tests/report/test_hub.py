"""Pushing a model folder: what goes to the hub, and every way in which it is refused. The hub's client is replaced."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from typer.testing import CliRunner

from expunge.cli import app
from expunge.errors import ModelError
from expunge.report import card, hub
from expunge.runfolder import RunFolder
from tests.report import synthetic


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run with what stands for a saved model."""
    made = RunFolder(synthetic.demo(tmp_path / "demo", records=5, epochs=1, names=["etw"]).path / "etw")
    made.write_text("model/config.json", "{}")
    return made


class Api:
    """The client's part that is used; it keeps what was asked of it."""

    said: list[tuple[str, dict[str, Any]]]
    broken: Exception | None = None

    def __init__(self, **settings: Any) -> None:
        self.said.append(("client", settings))

    def create_repo(self, name: str, **settings: Any) -> SimpleNamespace:
        """The repository."""
        if self.broken is not None:
            raise self.broken
        self.said.append((name, settings))
        return SimpleNamespace(repo_id=name)

    def upload_folder(self, **settings: Any) -> SimpleNamespace:
        """The commit."""
        self.said.append(("upload", settings))
        return SimpleNamespace(commit_url="https://hub/me/etw/commit/1")


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> Callable[..., type[Api]]:
    """Makes the hub reachable, with a token, through `Api`."""

    def prepare(token: str | None = "t", broken: Exception | None = None) -> type[Api]:
        Api.said, Api.broken = [], broken
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
        monkeypatch.setattr(huggingface_hub, "HfApi", Api)
        return Api

    return prepare


def test_the_model_folder_and_nothing_else_goes_to_a_private_repository(
    run: RunFolder, online: Callable[..., type[Api]]
) -> None:
    api = online()
    assert hub.push(run.path, "me/etw") == "https://hub/me/etw/commit/1"
    assert api.said == [
        ("client", {"library_name": "expunge"}),
        ("me/etw", {"private": True, "exist_ok": True}),
        ("upload", {
            "repo_id": "me/etw", "folder_path": run.file("model"),
            "commit_message": "Upload an unlearned model with its card",
        }),
    ]  # fmt: skip
    assert run.file(f"model/{card.FILE}").is_file(), "a card is written where there is none"


def test_what_cannot_be_pushed_is_refused_with_the_reason(
    run: RunFolder, online: Callable[..., type[Api]], monkeypatch: pytest.MonkeyPatch
) -> None:
    api = online(token=None)
    with pytest.raises(ModelError, match=r"not logged in to the hub\. Give: hf auth login"):
        hub.push(run.path, "me/etw")
    with pytest.raises(ModelError, match=r"'etw' names no repository on the hub\. Give OWNER/NAME"):
        hub.push(run.path, "etw")
    online()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        hub.push(run.path, "me/etw")
    online(broken=ConnectionError("no route\nto the hub"))
    with pytest.raises(ModelError, match=r"cannot push to 'me/etw': no route to the hub. The model is in"):
        hub.push(run.path, "me/etw")
    run.file("model/config.json").unlink()
    with pytest.raises(ModelError, match="holds no saved model"):
        hub.push(run.path, "me/etw")
    assert not [what for what, _ in api.said if what == "upload"]


def test_a_card_that_the_hub_cannot_read_is_not_pushed(run: RunFolder, online: Callable[..., type[Api]]) -> None:
    api = online()
    run.write_text(f"model/{card.FILE}", "---\n- no mapping\n---\n")
    with pytest.raises(ModelError, match="its card cannot be read"):
        hub.push(run.path, "me/etw")
    assert api.said == []


def test_the_verb_refuses_before_it_trains(
    tmp_path: Path, online: Callable[..., type[Api]], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"output_dir: {tmp_path / 'out'}\nmethod: {{preset: ga}}\nmodel: {{model_name_or_path: x}}\n"
                      "data: {forget: {path: none.jsonl}}\n")  # fmt: skip

    def refused(*more: str) -> str:
        said = CliRunner().invoke(app, ["run", str(recipe), *more, "--push-to-hub", "me/etw"])
        assert said.exit_code == 2
        assert not (tmp_path / "out").exists()
        return " ".join(said.output.split())

    online()
    assert "pushes one model, but the recipe stands for 2 runs" in refused("seeds=2")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refused()
