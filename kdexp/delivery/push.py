"""A delivered student sent to a hub: the plain folder with its card, in one commit, private unless told otherwise."""

from __future__ import annotations

from pathlib import Path

from kdexp.common import network

LOGIN = "HF_TOKEN, or `hf auth login`"
LIMIT = 20.0
"""Seconds within which the hub must have said who is logged in and what is there."""


def problems(repo: str, private: bool) -> list[str]:
    """Return everything that stops a push and can be known before a student is exported, as sentences.

    Args:
        repo: ``ORG/NAME`` on the hub.
        private: only its owners shall see it.
    """
    if repo.count("/") != 1 or not network.nameable(repo):
        return [f"push={repo!r} is no name of a model on the hub: it is ORG/NAME, letters, digits, - _ and . only."]
    off = network.switched_off()
    if off:
        return [f"push={repo}: the hub is switched off ({off}): unset it, or leave push= out."]
    from huggingface_hub import get_token

    if get_token() is None:
        return [f"push={repo} needs a token that may write there, and none is set ({LOGIN})."]
    try:
        is_private = network.within(LIMIT, lambda: _asked(repo))
    except Exception as error:  # of several libraries
        return [f"push={repo}: {_trouble(error, repo)}."]
    if is_private is None or is_private == private:
        return []
    state = "private" if is_private else "public"
    return [
        f"push={repo} is there and {state}, and private={str(private).lower()} asks for the other: change that on its "
        f"page, say private={str(is_private).lower()}, or choose another name."
    ]


def _asked(repo: str) -> bool | None:
    """Return whether a repository is private; None if there is none. The token is tried by that."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    api.whoami()
    try:
        return bool(api.repo_info(repo, timeout=LIMIT).private)
    except RepositoryNotFoundError:
        return None


def push(folder: Path, repo: str, private: bool) -> str:
    """Send all files of a folder in one commit, making the repository if there is none; return its address.

    Args:
        folder: of the plain form, with its card. The card's example names the repository there.
        repo, private: as :func:`problems` takes them.

    Raises:
        RuntimeError: the hub has not taken it; the folder stays as it is.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    additions = [CommitOperationAdd(path.name, path) for path in files if path.name != "README.md"]
    card = (folder / "README.md").read_text(encoding="utf-8").replace(f'model="{folder.name}"', f'model="{repo}"')
    additions.append(CommitOperationAdd("README.md", card.encode()))
    try:
        address = api.create_repo(repo, private=private, exist_ok=True)
        api.create_commit(repo, additions, commit_message="A distilled student, by kdexp")
    except Exception as error:  # of several libraries
        raise RuntimeError(
            f"push={repo}: {_trouble(error, repo)}. What was exported is whole: `hf upload {repo} {folder}` sends it "
            "later."
        ) from error
    return str(address)


def _trouble(error: BaseException, repo: str) -> str:
    """Say what is the matter, and what to do; without a full stop."""
    behind: BaseException | None = error
    while behind is not None and getattr(behind, "response", None) is None:
        behind = behind.__cause__  # the client's "Error while uploading" has the hub's answer behind it
    status = getattr(getattr(behind, "response", None), "status_code", None)
    if status == 403:
        return (
            f"the hub ({network.host()}) does not let this login write to {repo.partition('/')[0]}: use a token with "
            f"the right to write ({LOGIN}), or another name"
        )
    return network.trouble(behind or error, "model", repo, None)
