"""Fetch a model from the Hugging Face hub: its licence first, then files that resume and are verified."""

from __future__ import annotations

import fnmatch
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from hy_core.errors import HyError, MissingError, UsageError
from hy_core.models.finding import FOLDERS

_NETWORK = "check the network; HF_ENDPOINT names another hub"
_BLOCK = 1 << 22
_LICENSE_BYTES = 1 << 18


@dataclass(frozen=True)
class RemoteFile:
    """A file of the repository: its path there, its size in bytes, and its SHA-256 where the hub states one."""

    path: str
    bytes: int
    sha256: str | None


@dataclass(frozen=True)
class Pull:
    """What will be fetched: `commit` is the exact revision, `license_text` the owner's licence, or its name."""

    repository: str
    commit: str
    target: Path
    files: tuple[RemoteFile, ...]
    license_text: str

    @property
    def bytes(self) -> int:
        """The size of all files."""
        return sum(file.bytes for file in self.files)


def plan_pull(
    repository: str, target: Path | None = None, revision: str | None = None, include: Sequence[str] = ()
) -> Pull:
    """Ask the hub what a repository holds. Raises MissingError if it, or the hub, can't be reached.

    `target` None means a folder of the repository's name in $HY_MODELS, or in the current folder. `include` are
    patterns of files to fetch; all by default. HyError for paths that would leave the target.
    """
    from huggingface_hub import HfApi

    if repository.count("/") != 1:
        raise UsageError(f"{repository!r} names no repository", "OWNER/NAME, such as tencent/HunyuanVideo")
    with _hub_errors(repository):
        info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    files = []
    for one in info.siblings or ():
        path = PurePosixPath(one.rfilename)
        if path.is_absolute() or ".." in path.parts or "\\" in one.rfilename or not path.parts:
            raise HyError(
                f"{repository} has a file {one.rfilename[:100]!r}", "that leaves the folder: not fetched"
            )
        if include and not any(fnmatch.fnmatch(one.rfilename, pattern) for pattern in include):
            continue
        files.append(RemoteFile(one.rfilename, one.size or 0, one.lfs.sha256 if one.lfs else None))
    if not files:
        raise MissingError(f"{repository} has no files that match {', '.join(include)}", "check --include")
    shelf = os.environ.get(FOLDERS)
    target = target or Path(shelf or ".") / repository.split("/")[1]
    commit = info.sha or revision or "main"
    names = [one.rfilename for one in info.siblings or ()]
    return Pull(repository, commit, target, tuple(files), _license(repository, commit, names, info.card_data))


def pull_files(plan: Pull) -> None:
    """Fetch the files of a plan into its folder. A stopped download resumes; finished files are kept.

    Raises HyError for a file whose checksum is wrong, after removing it, and for a full disk.
    """
    from huggingface_hub import hf_hub_download

    plan.target.mkdir(parents=True, exist_ok=True)
    for file in plan.files:
        with _hub_errors(plan.repository):
            path = Path(
                hf_hub_download(plan.repository, file.path, revision=plan.commit, local_dir=plan.target)
            )
        if file.sha256 and _sha256(path) != file.sha256:
            path.unlink()
            raise HyError(
                f"{path} was damaged on the way (its SHA-256 differs) and is removed", "run it again"
            )


def _license(repository: str, commit: str, names: Sequence[str], card: object) -> str:
    from huggingface_hub import hf_hub_download

    wanted = [name for name in names if PurePosixPath(name).name.upper().startswith(("LICENSE", "LICENCE"))]
    stated = str(getattr(card, "license_name", None) or getattr(card, "license", None) or "not stated")
    if not wanted:
        return f"licence: {stated}; see the repository's page"
    with _hub_errors(repository):
        path = Path(hf_hub_download(repository, min(wanted, key=len), revision=commit))
    with path.open("rb") as file:
        text = file.read(_LICENSE_BYTES).decode("utf-8", "replace")
    return "".join(character for character in text if character.isprintable() or character in "\n\t")


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Turn what the hub's library raises into one line."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError:
        raise MissingError(
            f"{repository} wants its terms accepted on its page first", "accept them, then: hf auth login"
        ) from None
    except RepositoryNotFoundError:
        raise MissingError(
            f"the hub has no model {repository}", "check the name; private ones need: hf auth login"
        ) from None
    except HFValidationError as error:
        raise UsageError(f"{repository!r} names no repository: {str(error)[:120]}") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise MissingError(f"can't fetch from {repository}: {reason}", _NETWORK) from None
    except Exception as error:  # httpx has its own family, which isn't an OSError
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpcore"):
            raise
        raise MissingError(
            f"can't reach the hub for {repository}: {type(error).__name__}",
            _NETWORK,
        ) from None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
