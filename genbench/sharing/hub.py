"""A model repository of the Hugging Face hub: `hf://user/name`, by huggingface_hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genbench.errors import UserMistake
from genbench.runs.files import first_line
from genbench.runs.method import NOT_THE_DATA

SCHEME = "hf://"
REMEDY = "pip install 'genbench[hub]'"
FILES = """
## Files

- `model.safetensors`: the weights that `genbench sample` draws from, without discriminators; BatchNorm has the statistics
  of samples. Images are from -1 to 1.
- `config.yaml`: the resolved settings, without paths; `model:` is what `hydra.utils.instantiate` builds
- `result.json`: the record with its scores and their cards
"""


def is_hub(destination: str) -> bool:
    """Whether it is an address of the hub."""
    return destination.startswith(SCHEME)


def repository_of(destination: str) -> str:
    """`user/name` of `hf://user/name`. UserMistake if it is not of that form."""
    name = destination.removeprefix(SCHEME).rstrip("/")
    if name.count("/") != 1 or not all(name.split("/")):
        raise UserMistake(f"{destination} is no repository of the hub: give hf://user/name")
    return name


def public_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what is of one machine: paths, loggers, where the data is."""
    kept = {key: value for key, value in config.items() if key not in ("paths", "logger")}
    data = {k: v for k, v in (config.get("dataset") or {}).items() if k not in NOT_THE_DATA}
    if isinstance(data.get("source"), Mapping):
        data["source"] = {k: v for k, v in data["source"].items() if k != "root"}
    return kept | {"dataset": data}


def public_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """A record without what is of one machine: see `public_config`; its host and folders."""
    environment = {
        key: value
        for key, value in (result.get("environment") or {}).items()
        if key in ("versions", "device", "command", "precision")
    }
    return {
        **result,
        "config": public_config(result.get("config") or {}),
        "environment": environment,
    }


def upload(folder: Path, destination: str, private: bool, message: str) -> str:
    """Put a folder into the repository in one commit, made if it does not exist; the address of it.

    UserMistake without huggingface_hub, without a login, and for what the hub refuses: then nothing has changed.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise UserMistake(f"hf:// needs huggingface_hub ({first_line(error)}): {REMEDY}") from None
    name = repository_of(destination)
    api = HfApi(library_name="genbench")
    try:
        api.create_repo(name, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=name, folder_path=folder, commit_message=message)
    except Exception as error:  # of httpx, of the hub, of its checks of names and tokens
        raise UserMistake(
            f"cannot push to {destination}: {first_line(error)}; nothing of yours is lost: push again when it "
            "can be reached and `hf auth login` was done"
        ) from error
    return str(getattr(done, "repo_url", None) or f"{api.endpoint}/{name}")
