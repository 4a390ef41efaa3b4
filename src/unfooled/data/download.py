"""Fetch a file, whole and verified or not at all."""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unfooled.data.checks import describe
from unfooled.errors import DataError, MissingData, OutputError

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes that have come and the bytes in all (0 where the server is silent)."""

_TIMEOUT = 30  # seconds without an answer
_CHUNK = 1 << 16


def cache_folder() -> Path:
    """Where downloads are kept: ``data`` in ``UNFOOLED_CACHE``, or in the platform's folder for caches."""
    import pooch

    chosen = os.environ.get("UNFOOLED_CACHE")
    return (Path(chosen).expanduser() if chosen else Path(pooch.os_cache("unfooled"))) / "data"


def fetch(url: str, target: Path, md5: str, progress: Progress | None = None) -> None:
    """Download `url` to `target`, which appears only when it is complete and verified.

    Raises:
        MissingData: the server cannot be reached, has no such file or broke off.
        DataError: what came is not the file that the checksum names.
        OutputError: the folder cannot be written.
    """
    with _workplace(target.parent) as work:
        part = work / target.name
        _transfer(url, part, progress)
        _verify(url, part, md5)
        part.replace(target)


def fetch_members(url: str, folder: Path, members: Sequence[str], md5: str, progress: Progress | None = None) -> None:
    """Download a tar archive and lay these members of it, by their last names, into `folder`.

    Nothing else of the archive is written, and its own paths are never used.

    Raises:
        MissingData, DataError, OutputError: as `fetch`; also where a member is missing.
    """
    with _workplace(folder.parent) as work:
        archive = work / url.rpartition("/")[2]
        _transfer(url, archive, progress)
        _verify(url, archive, md5)
        fresh = work / "members"
        fresh.mkdir()
        _extract(archive, fresh, members)
        folder.mkdir(exist_ok=True)
        for member in members:
            (fresh / member).replace(folder / member)


@contextmanager
def _workplace(folder: Path) -> Iterator[Path]:
    """A passing folder beside the target, on the same disk, so that the last step is one rename."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as work:
            yield Path(work)
    except OSError as error:
        why = f"{folder} cannot be written: {error}. Set UNFOOLED_CACHE to another folder."
        raise OutputError(why) from error


def _transfer(url: str, part: Path, progress: Progress | None) -> None:
    import pooch

    # Without "identity" a server may gzip the stream and requests would undo the file's own gzip as well.
    options: dict[str, Any] = {"timeout": _TIMEOUT, "headers": {"Accept-Encoding": "identity"}}
    bar = _Bar(part.name, progress) if progress else False
    try:
        pooch.HTTPDownloader(progressbar=bar, chunk_size=_CHUNK, **options)(url, str(part), None)
    except OSError as error:  # requests' errors are OSErrors too, but carry no errno
        if error.errno is not None:
            raise
        raise MissingData(f"{url} could not be downloaded: {_reason(error)}.") from error


def _reason(error: OSError) -> str:
    """One short line: requests' own texts run over several and repeat the address."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return f"the server answered {status}"
    text = " ".join(str(error).split())
    if "IncompleteRead" in text:
        return "the transfer broke off"
    if "Timeout" in type(error).__name__:
        return f"no answer within {_TIMEOUT} seconds"
    if "ConnectionError" in type(error).__name__:
        return "the server cannot be reached"
    return text.rstrip(".")


def _verify(url: str, part: Path, md5: str) -> None:
    import pooch

    found = pooch.file_hash(str(part), alg="md5")
    if found != md5:
        with part.open("rb") as file:
            looks = describe(file.read(64))
        raise DataError(
            f"{url} gave another file than expected (md5 {found} instead of {md5}; it {looks}). Nothing was kept."
        )


def _extract(archive: Path, folder: Path, members: Sequence[str]) -> None:
    wanted = set(members)
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                name = member.name.rpartition("/")[2]
                content = tar.extractfile(member) if name in wanted and member.isreg() else None
                if content is not None:
                    with (folder / name).open("wb") as file:
                        while block := content.read(1 << 20):
                            file.write(block)
                    wanted.remove(name)
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive.name} is not a readable tar archive: {error}.") from error
    if wanted:
        raise DataError(f"{archive.name} lacks {', '.join(sorted(wanted))}.")


class _Bar:
    """What pooch asks of a progress bar, handed on to a callback."""

    def __init__(self, name: str, report: Progress) -> None:
        self.name, self.report = name, report
        self.total = 0
        self._done = 0

    def update(self, more: int) -> None:
        self._done += more
        self.report(self.name, min(self._done, self.total) if self.total else self._done, self.total)

    def reset(self) -> None:
        self._done = 0

    def close(self) -> None:
        """Nothing to close: the caller draws."""
