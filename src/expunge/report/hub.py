"""A run's model folder on the Hugging Face Hub: its card read by the Hub's own parser first, the repository private."""

from __future__ import annotations

import re
from pathlib import Path

from expunge import runfolder
from expunge.errors import ModelError
from expunge.report import card

_NAME = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def check(name: str) -> None:
    """ModelError if `name` is no OWNER/NAME, or if the hub cannot be reached from here: before anything is trained."""
    from huggingface_hub import constants, get_token

    if not _NAME.fullmatch(name):
        raise ModelError(f"'{name}' names no repository on the hub. Give OWNER/NAME")
    if constants.HF_HUB_OFFLINE:
        raise ModelError(f"cannot push to '{name}': HF_HUB_OFFLINE is set. Unset it, or leave out --push-to-hub")
    if not get_token():
        raise ModelError(f"cannot push to '{name}': you are not logged in to the hub. Give: hf auth login")


def push(run: str | Path, name: str) -> str:
    """The address of the commit that holds the run's model folder, card included, in the repository OWNER/NAME.

    A repository that is not there yet is made, private; one that is there keeps its visibility. Nothing else of the run
    goes along: no records, no tables, no report. ModelError where there is no model, no access or no network.
    """
    from huggingface_hub import HfApi, ModelCard
    from huggingface_hub import errors as failures

    check(name)
    folder = runfolder.open(run).file("model")
    if not (folder / "config.json").is_file():
        raise ModelError(f"run '{run}' holds no saved model ({folder}). Finish the run first")
    file = folder / card.FILE
    if not file.is_file():
        card.write(run)
    try:
        ModelCard.load(file)
    except ValueError as error:
        raise ModelError(
            f"cannot push to '{name}': its card cannot be read ({error}). Mend or delete '{file}'"
        ) from None
    api = HfApi(library_name="expunge")
    try:
        repository = api.create_repo(name, private=True, exist_ok=True)
        done = api.upload_folder(
            repo_id=repository.repo_id, folder_path=folder, commit_message="Upload an unlearned model with its card"
        )
    except (failures.HTTPError, OSError) as error:  # type: ignore[attr-defined]  # that of the client that it uses
        reason = " ".join(str(error).split())[:300]
        raise ModelError(f"cannot push to '{name}': {reason}. The model is in '{folder}'; push it again") from None
    return str(done.commit_url)
