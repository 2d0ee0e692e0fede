"""What a download has to do: the commit, its files, and what of them is there already. Reads the folder and asks the Hub; writes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from enum import Enum
from pathlib import Path

from qwen_fp8_ops.errors import GaveUpError, OpsError
from qwen_fp8_ops.outside.files import read_json, write_json
from qwen_fp8_ops.weights import manifest
from qwen_fp8_ops.weights.fetch import WORK, part_path, patiently
from qwen_fp8_ops.weights.hub import Hub, HubFile, is_commit
from qwen_fp8_ops.weights.hub_errors import HubError
from qwen_fp8_ops.weights.manifest import Manifest, ManifestFile


@dataclass(frozen=True)
class Request:
    """What a download was asked to do.

    ``offline``: ask nobody. ``update``: go to the commit that a moved branch means now; without it a folder stays at the commit
    it was begun with.
    """

    repo: str
    revision: str
    folder: Path
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    offline: bool = False
    update: bool = False
    workers: int = 8


class Presence(Enum):
    VERIFIED = "verified"
    FOUND = "found"  # there in the right size, by other means: to be hashed
    PART = "part"
    ABSENT = "absent"


@dataclass(frozen=True)
class Item:
    """One file of the choice and what of it is there."""

    file: HubFile
    presence: Presence
    present_bytes: int


@dataclass(frozen=True)
class DownloadPlan:
    """``known`` is the manifest without what is not true any more; ``listing`` all files of the commit, None where the manifest
    was enough; ``gone`` names files of the commit before that this one does not have; ``moved_to`` is a newer commit of the branch,
    which was not asked for."""

    request: Request
    commit: str
    items: tuple[Item, ...]
    known: Manifest | None
    listing: tuple[HubFile, ...] | None
    gone: tuple[str, ...] = ()
    moved_to: str | None = None

    @property
    def todo(self) -> tuple[Item, ...]:
        """Small files first: what they say of the model is wanted soonest."""
        left = [item for item in self.items if item.presence is not Presence.VERIFIED]
        return tuple(sorted(left, key=lambda item: (item.file.git_blob is None, item.file.name)))

    @property
    def bytes(self) -> int:
        return sum(item.file.bytes for item in self.items)

    @property
    def present_bytes(self) -> int:
        return sum(item.present_bytes for item in self.items)

    @property
    def missing_bytes(self) -> int:
        return self.bytes - self.present_bytes

    @property
    def settled(self) -> bool:
        """Is everything as it should be, down to the manifest? Then nothing needs to be written, and the folder may be another user's."""
        return not self.todo and not self.gone and self.known is not None and self.manifest(self.known.files) == self.known

    def manifest(self, verified: Iterable[ManifestFile]) -> Manifest:
        """The folder's manifest once these are verified."""
        request, files = self.request, tuple(sorted(verified, key=lambda file: file.name))
        if self.listing is None and self.known:
            return replace(self.known, requested=request.revision)
        names = {file.name for file in files}
        whole = all(file.name in names for file in self.listing or ())
        return Manifest(
            repo=request.repo,
            revision=self.commit,
            requested=request.revision,
            files=files,
            complete=all(item.file.name in names for item in self.items),
            include=() if whole else request.include,
            exclude=() if whole else request.exclude,
        )


def make_download_plan(request: Request, hub: Hub, say: Callable[[str], None], before: DownloadPlan | None = None) -> DownloadPlan:
    """
    Args:
        before: a plan of this request from a moment ago; the Hub is not asked again, the folder is looked at again.

    Raises:
        OpsError: the folder holds another model; offline, and it is not known what should be here.
        HubError, GaveUpError: the Hub does not say.
    """
    known = manifest.read(request.folder)
    if known and known.repo != request.repo:
        raise OpsError(f"{request.folder} holds {known.repo}, not {request.repo}", code="other-model", fix="Name another folder: --to /other/folder, or MODEL_PATH.")
    commit, moved_to = (before.commit, before.moved_to) if before else _choose_commit(request, known, hub, say)
    listing = before.listing if before else None
    if listing is None and not (known and _is_enough(known, request, commit)):
        listing = _list_files(request, commit, hub, moved_to, say)
    gone: tuple[str, ...] = ()
    if listing is not None and known:
        digests = {file.name: file.digest for file in listing}
        true = [file for file in known.files if digests.get(file.name) == (file.git_blob or file.sha256) and file.unchanged(request.folder)]
        gone = tuple(file.name for file in known.files if file.name not in digests and (request.folder / file.name).is_file())
        known = replace(known, files=tuple(true))
    there = {file.name: file for file in known.files} if known else {}
    chosen = choose(listing if listing is not None else tuple(map(_from_manifest, there.values())), request)
    if not chosen:
        raise OpsError(f"No file of {request.repo} matches --include and --exclude", code="nothing-chosen", fix="See which it has: qwen-fp8 download --dry-run")
    items = tuple(Item(file, Presence.VERIFIED, file.bytes) if file.name in there else _look(file, request.folder) for file in chosen)
    return DownloadPlan(request, commit, items, known, listing, gone, moved_to)


def choose(files: tuple[HubFile, ...], request: Request) -> tuple[HubFile, ...]:
    """The files that match a pattern of ``include`` (none: all) and none of ``exclude``, as `hf download` understands patterns."""
    if not request.include and not request.exclude:
        return files
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]  # public, but not declared so

    return tuple(filter_repo_objects(files, allow_patterns=list(request.include) or None, ignore_patterns=list(request.exclude) or None, key=lambda file: file.name))


def _choose_commit(request: Request, known: Manifest | None, hub: Hub, say: Callable[[str], None]) -> tuple[str, str | None]:
    """The commit to bring, and the one that the branch has moved to since.

    A folder stays at the commit it was begun with: an interrupted download never ends as a mixture of two, and a service never
    gets other weights without anybody asking.
    """
    if is_commit(request.revision):
        return request.revision, None
    pinned = known.revision if known and known.requested == request.revision else ""
    if request.offline:
        if pinned:
            return pinned, None
        raise OpsError(
            f"Offline, and nothing here tells which files {request.repo} has at {request.revision}",
            code="offline",
            fix="Download once with a network, without --offline and HF_HUB_OFFLINE.",
        )
    try:
        latest = patiently(lambda: hub.commit(request.repo, request.revision), hub.first_delays_seconds, say)
    except GaveUpError as error:
        if not (pinned and known and known.complete):
            raise
        say(f"{error.message}: whether {request.revision} has moved since cannot be told")
        return pinned, None
    return (pinned, latest) if pinned and latest != pinned and not request.update else (latest, None)


def _is_enough(known: Manifest, request: Request, commit: str) -> bool:
    """Does the manifest alone tell that nothing is left to do?"""
    same_choice = not known.partial or (known.include, known.exclude) == (request.include, request.exclude)
    return known.complete and known.revision == commit and same_choice and all(file.unchanged(request.folder) for file in known.files)


def _list_files(request: Request, commit: str, hub: Hub, moved_to: str | None, say: Callable[[str], None]) -> tuple[HubFile, ...]:
    """All files of the commit but those whose names are ours."""
    remembered = _recall(request, commit)
    if remembered is not None:
        return remembered
    if request.offline:
        raise OpsError(f"Offline, and nothing here tells which files {request.repo} has at {commit}", code="offline", fix="Download once with a network, without --offline and HF_HUB_OFFLINE.")
    try:
        files = patiently(lambda: hub.files(request.repo, commit), hub.first_delays_seconds, say)
    except HubError as error:
        if error.code == "no-revision" and moved_to:
            error.fix = f"{request.revision} is now {moved_to}; to go there: qwen-fp8 download --update"
        raise
    return tuple(file for file in files if file.name != manifest.FILE and not file.name.startswith(f"{WORK}/"))


def remember(plan: DownloadPlan) -> None:
    """Keep the list of files: a commit never changes, so a resumed run need not ask again, and an offline one can name what is missing.

    Raises:
        OpsError: the folder refuses the write.
    """
    if plan.listing is not None:
        write_json(_listing_path(plan.request.folder), {"schema": 1, "repo": plan.request.repo, "commit": plan.commit, "files": list(map(asdict, plan.listing))})


def _recall(request: Request, commit: str) -> tuple[HubFile, ...] | None:
    try:
        value = read_json(_listing_path(request.folder))
        if value and value["schema"] == 1 and (value["repo"], value["commit"]) == (request.repo, commit):
            files = tuple(HubFile(**entry) for entry in value["files"])
            return files if all(manifest.is_inside(file.name) for file in files) else None
    except (OpsError, KeyError, TypeError):
        return None  # half written or from another version: the Hub is asked again
    return None


def _listing_path(folder: Path) -> Path:
    return folder / WORK / "listing.json"


def _from_manifest(file: ManifestFile) -> HubFile:
    return HubFile(file.name, file.bytes, None if file.git_blob else file.sha256, file.git_blob)


def _look(file: HubFile, folder: Path) -> Item:
    target, part = folder / file.name, part_path(folder, file)
    if target.is_file() and target.stat().st_size == file.bytes:
        return Item(file, Presence.FOUND, file.bytes)
    if part.is_file():
        return Item(file, Presence.PART, min(part.stat().st_size, file.bytes))
    return Item(file, Presence.ABSENT, 0)
