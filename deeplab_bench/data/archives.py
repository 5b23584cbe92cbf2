"""Downloads of published archives: fetch, check, and unpack completely or not at all."""

import gzip
import hashlib
import os
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath, PureWindowsPath

import requests
from tqdm import tqdm
from urllib3.exceptions import HTTPError

from deeplab_bench.errors import UserError
from deeplab_bench.writing import describe_lack_of_room

DOWNLOADS = Path("data") / "downloads"
TIMEOUT_S = (10.0, 60.0)  # for the connection; between two pieces of the body
CHUNK_BYTES = 1 << 18


class DownloadError(UserError):
    """A file cannot be downloaded or unpacked; the message says which, why, and what to do."""


class _Failed(Exception):
    """One address or one archive cannot be used; the text says why."""


_ADDRESS_ERRORS = (_Failed, requests.RequestException, HTTPError)
_UNPACK_ERRORS = (tarfile.TarError, gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class Archive:
    """A published file: ``urls`` holds the official address first, then mirrors.

    ``digest`` is "md5:<hex>" or "sha256:<hex>". It may be only the first digits, such as
    torchvision gives in the file names of its weights. None means that nothing is published.
    """

    filename: str
    urls: tuple[str, ...]
    size_bytes: int | None
    digest: str | None

    def with_mirrors(self, mirrors: Iterable[str]) -> "Archive":
        """Return the archive with more addresses, which are tried last."""
        return replace(self, urls=(*self.urls, *mirrors))


@dataclass(frozen=True)
class _Part:
    """A partial download, and a file beside it that says where the bytes came from."""

    path: Path

    @property
    def origin_path(self) -> Path:
        return self.path.with_name(f"{self.path.name}.origin")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def origin(self) -> str:
        """Return the address and, on a second line, its ETag or Last-Modified if there is one."""
        return self.origin_path.read_text() if self.origin_path.exists() else ""

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.origin_path.unlink(missing_ok=True)

    def publish(self, target: Path) -> None:
        with self.path.open("rb+") as file:
            os.fsync(file.fileno())
        self.path.replace(target)
        self.discard()


def fetch(archive: Archive, folder: Path, *, progress: bool = True) -> Path:
    """Return the path ``folder/filename``; download the file if it is missing, and check it.

    An interrupted download continues where it stopped, also in a later run.

    Raises:
        DownloadError: all addresses failed, the file differs from the published one, or the disk
            is full.
    """
    target = folder / archive.filename
    try:
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _download(archive, target, progress)
        elif problem := _problem(archive, target):
            advice = "remove it or put the right file there, and run again"
            raise DownloadError(f"{target}: {problem}; {advice}")
    except OSError as error:
        advice = "check the disk and run again; the bytes received are kept"
        raise DownloadError(f"{target}: {_reason(error)}; {advice}") from error
    return target


def _download(archive: Archive, target: Path, progress: bool) -> None:
    part = _Part(target.with_name(f"{target.name}.part"))
    failures = []
    for url in archive.urls:
        try:
            _attempt(archive, url, part, progress)
            return part.publish(target)
        except _ADDRESS_ERRORS as error:
            failures.append(f"{url}: {_reason(error)}")
    kept = part.size()
    again = f"continue after the {kept} bytes kept" if kept else "try again from the start"
    raise DownloadError(
        f"{archive.filename} could not be downloaded: {'; '.join(failures)}; "
        f"run again to {again}, or put the file at {target} yourself and run again"
    )


def _attempt(archive: Archive, url: str, part: _Part, progress: bool) -> None:
    if part.size() != archive.size_bytes:
        _transfer(archive, url, part, progress)
    if problem := _problem(archive, part.path):
        part.discard()
        raise _Failed(f"{problem} (the bad partial file was removed)")


def _transfer(archive: Archive, url: str, part: _Part, progress: bool) -> None:
    wanted = _range_headers(archive, url, part)
    headers = {"Accept-Encoding": "identity", **wanted}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
        answered_range = response.headers.get("Content-Range", "")
        if wanted and answered_range == f"bytes */{part.size()}":
            return  # nothing is missing
        if wanted and _cannot_continue(response, wanted, part):
            part.discard()
            return _transfer(archive, url, part, progress)
        if response.status_code not in ((200, 206) if wanted else (200,)):
            raise _Failed(f"HTTP {response.status_code} {response.reason}")
        stated = (answered_range or response.headers.get("Content-Length", "")).rpartition("/")[2]
        total = int(stated) if stated.isdigit() else archive.size_bytes
        _check_total(archive, part, total)
        _receive(response, url, part, total, progress)


def _range_headers(archive: Archive, url: str, part: _Part) -> dict[str, str]:
    """Ask for the rest of a file only if a validator or the digest can prove that it fits."""
    if not part.size():
        return {}
    rest = {"Range": f"bytes={part.size()}-"}
    origin, _, validator = part.origin().partition("\n")
    if origin == url and validator:
        return rest | {"If-Range": validator}
    return rest if archive.digest else {}


def _validator(response: requests.Response) -> str:
    etag = response.headers.get("ETag", "")
    # A weak ETag does not promise equal bytes, and HTTP forbids it in If-Range.
    strong = "" if etag.startswith("W/") else etag
    return strong or response.headers.get("Last-Modified", "")


def _cannot_continue(response: requests.Response, wanted: dict[str, str], part: _Part) -> bool:
    if response.status_code != 206:
        return response.status_code == 416
    changed = "If-Range" in wanted and _validator(response) not in ("", wanted["If-Range"])
    start = f"bytes {part.size()}-"
    return changed or not response.headers.get("Content-Range", "").startswith(start)


def _check_total(archive: Archive, part: _Part, total: int | None) -> None:
    if total is None:
        return
    if archive.size_bytes not in (None, total):
        raise _Failed(f"offers {total} bytes instead of {archive.size_bytes}")
    if lack := describe_lack_of_room(part.path.parent, total - part.size()):
        raise DownloadError(f"{part.path}: {lack}; make room and run again to continue")


def _receive(
    response: requests.Response, url: str, part: _Part, total: int | None, progress: bool
) -> None:
    append = response.status_code == 206
    with part.path.open("ab" if append else "wb") as file:
        if not append:
            part.origin_path.write_text(f"{url}\n{_validator(response)}")
        quiet, name, start = not progress, part.path.stem, file.tell()
        with tqdm.wrapattr(file, "write", total, initial=start, desc=name, disable=quiet) as out:
            # Undecoded: some servers call a .tgz gzip-encoded, and the digest is of the .tgz.
            for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                out.write(chunk)
    if total is not None and part.size() != total:
        raise _Failed(f"the connection ended after {part.size()} of {total} bytes")


def _problem(archive: Archive, path: Path) -> str | None:
    """Say how the file differs from the published one; None if it does not."""
    size = path.stat().st_size
    if archive.size_bytes not in (None, size):
        return f"the size is {size} instead of {archive.size_bytes} bytes"
    if archive.digest is None:
        return None
    algorithm, _, expected = archive.digest.partition(":")
    with path.open("rb") as file:
        actual = hashlib.file_digest(file, algorithm).hexdigest()
    if actual.startswith(expected):
        return None
    return f"the {algorithm} is {actual} instead of {expected}"


def _reason(error: BaseException) -> str:
    """Return the root cause on one line; the libraries wrap it in several other errors."""
    while not isinstance(error, _Failed) and (cause := error.__cause__ or error.__context__):
        error = cause
    return str(error).partition("\n")[0].rstrip(":") or type(error).__name__


@contextmanager
def create_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder, renamed to ``folder`` if the block ends without an error.

    Raises:
        DownloadError: ``folder`` is not empty; it is never overwritten.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise DownloadError(f"{folder} already exists; remove it and run again")
    staging = folder.with_name(f"{folder.name}.tmp")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
        staging.replace(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def unpack(archive_path: Path, folder: Path, *, members_under: str | None = None) -> None:
    """Unpack a .zip, .tar or .tar.gz into the new folder ``folder``, completely or not at all.

    ``members_under`` is a folder in the archive; only its content is unpacked then.

    Raises:
        DownloadError: the archive is damaged or has no such content, a member's path leads out of
            ``folder``, ``folder`` is not empty, or the disk is full.
    """
    extract = _unpack_zip if archive_path.suffix == ".zip" else _unpack_tar
    try:
        with create_folder(folder) as staging:
            # Images hardly compress, so the unpacked files are about as large as the archive.
            if lack := describe_lack_of_room(staging, archive_path.stat().st_size):
                raise OSError(lack)
            extract(archive_path, staging, PurePosixPath(members_under or "."))
            if not any(staging.iterdir()):
                raise _Failed(f"it has no files in {members_under or 'its root'}")
    except (_Failed, *_UNPACK_ERRORS) as error:
        advice = "remove the file and run again to download it again"
        raise DownloadError(f"{archive_path}: not unpacked, {_reason(error)}; {advice}") from error
    except OSError as error:
        advice = "check the disk and run again"
        raise DownloadError(f"{folder}: not unpacked, {_reason(error)}; {advice}") from error


def _inner_path(name: str, under: PurePosixPath) -> PurePosixPath | None:
    """Return a member's path relative to ``under``; None if it lies elsewhere."""
    both_slashes = PureWindowsPath(name)
    if both_slashes.anchor or ".." in both_slashes.parts:
        raise _Failed(f"the path of member {name!r} leads out of the folder")
    path = PurePosixPath(name)
    return path.relative_to(under) if under in path.parents else None


def _unpack_tar(path: Path, folder: Path, under: PurePosixPath) -> None:
    unpacked: dict[str, str] = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if inner := _inner_path(member.name, under):
                # The target of a hard link is relative to the archive's root, a symlink's is not.
                link = unpacked.get(member.linkname) if member.islnk() else member.linkname
                if link is None:
                    raise _Failed(f"member {member.name!r} links to a file that is not unpacked")
                moved = member.replace(name=str(inner), linkname=link, deep=False)
                archive.extract(moved, folder, filter="data")
                unpacked[member.name] = str(inner)
        rest = archive.fileobj
        while rest and rest.read(CHUNK_BYTES):  # the CRC of a .tar.gz is at its end
            pass


def _unpack_zip(path: Path, folder: Path, under: PurePosixPath) -> None:
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            inner = _inner_path(member.filename, under)
            if inner is None or member.is_dir():
                continue
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 if the zip was not made on Unix
            if kind not in (0, stat.S_IFREG):
                raise _Failed(f"member {member.filename!r} is a link or a device")
            member.filename = str(inner)
            archive.extract(member, folder)  # checks the CRC
