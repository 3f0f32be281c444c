"""Speaking with the Hub: everything in one commit, and what it refuses is one clear line."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)

from pipeline.errors import InputError

ADVICE = {
    401: "log in with: hf auth login, or set HF_TOKEN to a token that may do this",
    403: "your token may not do this: make one with write access at the Hub's settings",
    404: "there is no such repository, or it is private and your token does not open it",
    409: "the name is taken by something else: choose another",
    429: "the Hub asks for patience: try again in a few minutes",
}

# What the Hub adds to every repository.
KEPT = {".gitattributes"}


def upload(repo: str, kind: str, files: Mapping[str, Path | bytes], message: str, private: bool, **made: Any) -> str:
    """Make these the only files of a repository, in one commit. Returns its address.

    `kind` is model, dataset or space. A repository that is not there is made, `private` or not, with what else
    `made` says. Raises what the client raises: call it under `clear_errors`.
    """
    api = HfApi()
    address = api.create_repo(repo, repo_type=kind, private=private, exist_ok=True, **made)
    stale = set(api.list_repo_files(repo, repo_type=kind)) - {*files, *KEPT}
    additions = [
        CommitOperationAdd(name, file if isinstance(file, bytes) else str(file)) for name, file in sorted(files.items())
    ]
    removals = [CommitOperationDelete(name) for name in sorted(stale)]
    api.create_commit(repo, repo_type=kind, operations=[*additions, *removals], commit_message=message)
    return str(address)


@contextmanager
def clear_errors(name: str) -> Iterator[None]:
    """Turn what the Hub's client raises about a repository into InputError."""
    try:
        yield
    except HFValidationError as error:
        raise InputError(f"{name!r} is no name of a repository; write OWNER/NAME") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.TransportError) as error:
        raise InputError(f"the Hub cannot be reached for {name!r}; check the network and HF_HUB_OFFLINE") from error
    except RevisionNotFoundError as error:
        raise InputError(f"the Hub has {name!r}, but no such revision; name a commit, a tag or a branch") from error
    except GatedRepoError as error:
        raise InputError(f"{name!r} wants its terms accepted: do so on its page, and log in: hf auth login") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise InputError(f"the Hub refuses {name!r} ({status}): {ADVICE.get(status, 'try again later')}") from error
