import hashlib
import io
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections import namedtuple
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deeplab_bench.data import archives
from deeplab_bench.data.archives import Archive, DownloadError, fetch, unpack

BODY = bytes(range(256)) * 40
CUT = 4000
Usage = namedtuple("Usage", "total used free")


@dataclass
class Served:
    """The server's answer for one file; the fields are the faults."""

    body: bytes = BODY
    status: int = 200
    etag: str | None = '"v1"'
    ranges: bool = True
    if_range: bool = True
    length: bool = True
    cut: int | None = None
    hold: threading.Event | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Asked:
    path: str
    range: str | None
    encoding: str | None
    sent: int = 0


class Site(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, Served] = {}
        self.log: list[Asked] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def bytes_sent(self) -> int:
        return sum(asked.sent for asked in self.log)


class Handler(BaseHTTPRequestHandler):
    timeout = 10
    server: Site

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = Asked(self.path[1:], self.headers["Range"], self.headers["Accept-Encoding"])
        self.server.log.append(asked)
        served = self.server.files.get(asked.path, Served(b"no such file", status=404))
        status, body = self.choose(served)
        self.send_response(status)
        for name, value in served.headers.items():
            self.send_header(name, value)
        if served.etag:
            self.send_header("ETag", served.etag)
        if status in (206, 416):
            first = len(served.body) - len(body)
            span = f"{first}-{len(served.body) - 1}" if status == 206 else "*"
            self.send_header("Content-Range", f"bytes {span}/{len(served.body)}")
        if served.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.send(asked, body[: served.cut], served.hold)

    def choose(self, served: Served) -> tuple[int, bytes]:
        wanted = self.headers["Range"]
        current = not served.if_range or self.headers["If-Range"] in (None, served.etag)
        if served.status != 200 or not (wanted and served.ranges and current):
            return served.status, served.body
        first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        return (206, served.body[first:]) if first < len(served.body) else (416, b"")

    def send(self, asked: Asked, body: bytes, hold: threading.Event | None) -> None:
        asked.sent = len(body)
        self.wfile.write(body)
        self.wfile.flush()
        if hold:
            hold.wait(20)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield site
        site.shutdown()
        thread.join(10)


def sha256(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def archive_at(*urls: str, body: bytes = BODY) -> Archive:
    return Archive("data.tar", urls, len(body), sha256(body))


def error_of(call: Callable[[], object]) -> str:
    with pytest.raises(DownloadError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    return message


def failed_fetch(archive: Archive, folder: Path) -> str:
    message = error_of(lambda: fetch(archive, folder, progress=False))
    assert "run again" in message
    assert not (folder / "data.tar").exists()
    return message


def cut_short(site: Site, archive: Archive, folder: Path, name: str = "data") -> None:
    """Fetch once, over a connection that ends after CUT bytes."""
    site.files[name].cut = CUT
    message = failed_fetch(archive, folder)
    assert f"continue after the {CUT} bytes kept" in message
    assert (folder / "data.tar.part").read_bytes() == site.files[name].body[:CUT]
    site.files[name].cut = None


def test_downloads_once(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.files["data"] = Served()
    archive = archive_at(site.url("data"))
    folder = tmp_path / "new" / "folder"
    for _ in range(2):
        assert fetch(archive, folder).read_bytes() == BODY
    assert [path.name for path in folder.iterdir()] == ["data.tar"]
    assert len(site.log) == 1
    assert re.search(r"data\.tar: 100%.*B/s", capsys.readouterr().err)


@pytest.mark.parametrize("digest", [f"md5:{hashlib.md5(BODY).hexdigest()}", None])
def test_other_digests(site: Site, tmp_path: Path, digest: str | None) -> None:
    site.files["data"] = Served()
    archive = Archive("data.tar", (site.url("data"),), None, digest)
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY


@pytest.mark.parametrize("digits", [8, 1, 64])
def test_first_digits_of_a_digest(site: Site, tmp_path: Path, digits: int) -> None:
    """Check digests as short as in torchvision's file names, such as resnet50-0676ba61.pth."""
    whole = hashlib.sha256(BODY).hexdigest()
    site.files["data"] = Served()
    archive = Archive("data.tar", (site.url("data"),), None, f"sha256:{whole[:digits]}")
    other = replace(archive, digest=f"sha256:{whole[1:digits]}0")
    assert f"the sha256 is {whole} instead of {whole[1:digits]}0" in failed_fetch(other, tmp_path)
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY


def test_mirror_after_404(site: Site, tmp_path: Path) -> None:
    site.files["mirror"] = Served()
    archive = archive_at(site.url("gone"), site.url("mirror"))
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY
    assert [asked.path for asked in site.log] == ["gone", "mirror"]


@pytest.mark.parametrize("status", [404, 416, 500])
def test_http_error(site: Site, tmp_path: Path, status: int) -> None:
    site.files["data"] = Served(b"<html>", status=status)
    message = failed_fetch(archive_at(site.url("data"), site.url("gone")), tmp_path)
    assert f"{site.url('data')}: HTTP {status}" in message
    assert f"{site.url('gone')}: HTTP 404" in message
    assert f"put the file at {tmp_path / 'data.tar'} yourself" in message
    assert list(tmp_path.iterdir()) == []


def test_refused_connection(site: Site, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/data"
        message = failed_fetch(archive_at(url), tmp_path)
    assert re.search(rf"{url}: \[Errno \d+\] Connection refused;", message)


def test_silent_server(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "TIMEOUT_S", (0.2, 0.2))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data"
        assert f"{url}: timed out" in failed_fetch(archive_at(url), tmp_path)


@pytest.mark.parametrize("digest", [sha256(BODY), None])
def test_truncated_body_is_resumed(site: Site, tmp_path: Path, digest: str | None) -> None:
    site.files["data"] = Served()
    archive = Archive("data.tar", (site.url("data"),), None, digest)
    cut_short(site, archive, tmp_path)
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY
    assert [asked.range for asked in site.log] == [None, f"bytes={CUT}-"]
    assert site.bytes_sent() == len(BODY)
    assert [path.name for path in tmp_path.iterdir()] == ["data.tar"]


def test_mirror_continues_what_another_began(site: Site, tmp_path: Path) -> None:
    site.files = {"data": Served(cut=CUT), "mirror": Served(etag='"other"')}
    fetch(archive_at(site.url("data"), site.url("mirror")), tmp_path, progress=False)
    assert (tmp_path / "data.tar").read_bytes() == BODY
    assert site.bytes_sent() == len(BODY)


def test_without_proof_a_mirror_starts_afresh(site: Site, tmp_path: Path) -> None:
    site.files = {"data": Served(cut=CUT), "mirror": Served(BODY[::-1])}
    archive = Archive("data.tar", (site.url("data"), site.url("mirror")), None, None)
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY[::-1]


def test_server_without_range(site: Site, tmp_path: Path) -> None:
    site.files["data"] = Served(ranges=False)
    archive = archive_at(site.url("data"))
    cut_short(site, archive, tmp_path)
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY
    assert site.log[-1].sent == len(BODY)


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_nothing_proves_the_part(site: Site, tmp_path: Path, etag: str | None) -> None:
    site.files["data"] = Served(etag=etag)
    archive = Archive("data.tar", (site.url("data"),), len(BODY), None)
    cut_short(site, archive, tmp_path)
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY
    assert [asked.range for asked in site.log] == [None, None]


def test_last_modified_proves_the_part(site: Site, tmp_path: Path) -> None:
    modified = {"Last-Modified": "Mon, 01 Jun 2015 10:00:00 GMT"}
    site.files["data"] = Served(etag=None, if_range=False, headers=modified)
    archive = Archive("data.tar", (site.url("data"),), len(BODY), None)
    cut_short(site, archive, tmp_path)
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY
    assert site.bytes_sent() == len(BODY)


@pytest.mark.parametrize("if_range", [True, False])
def test_changed_file_restarts(site: Site, tmp_path: Path, if_range: bool) -> None:
    site.files["data"] = Served()
    archive = Archive("data.tar", (site.url("data"),), None, None)
    cut_short(site, archive, tmp_path)
    site.files["data"] = Served(BODY[::-1], etag='"v2"', if_range=if_range)
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY[::-1]
    assert site.log[1].range == f"bytes={CUT}-"


def test_wrong_digest_starts_fresh(site: Site, tmp_path: Path) -> None:
    site.files["data"] = Served(BODY[::-1])
    archive = archive_at(site.url("data"))
    message = failed_fetch(archive, tmp_path)
    assert f"instead of {hashlib.sha256(BODY).hexdigest()}" in message
    assert "bad partial file was removed" in message
    assert "try again from the start" in message
    assert list(tmp_path.iterdir()) == []
    site.files["data"] = Served()
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY
    assert site.log[-1].range is None


def test_wrong_size_keeps_the_part(site: Site, tmp_path: Path) -> None:
    site.files["data"] = Served()
    archive = archive_at(site.url("data"))
    cut_short(site, archive, tmp_path)
    site.files["data"] = Served(b"<html>sign in</html>", etag=None)
    assert f"offers 20 bytes instead of {len(BODY)}" in failed_fetch(archive, tmp_path)
    site.files["data"] = Served()
    fetch(archive, tmp_path, progress=False)
    assert site.log[-1].range == f"bytes={CUT}-"


def test_wrong_size_of_unknown_length(site: Site, tmp_path: Path) -> None:
    site.files["data"] = Served(BODY + b"more", length=False)
    message = failed_fetch(archive_at(site.url("data")), tmp_path)
    assert f"{len(BODY) + 4} of {len(BODY)} bytes" in message


def test_complete_part_needs_no_bytes(site: Site, tmp_path: Path) -> None:
    site.files["data"] = Served()
    for size_bytes, requests_made in ((len(BODY), 0), (None, 1)):
        folder = tmp_path / str(size_bytes)
        folder.mkdir()
        (folder / "data.tar.part").write_bytes(BODY)
        archive = Archive("data.tar", (site.url("data"),), size_bytes, sha256(BODY))
        assert fetch(archive, folder, progress=False).read_bytes() == BODY
        assert len(site.log) == requests_made
    assert site.bytes_sent() == 0


def test_too_long_part_restarts(site: Site, tmp_path: Path) -> None:
    site.files["data"] = Served()
    (tmp_path / "data.tar.part").write_bytes(BODY + b"more")
    archive = archive_at(site.url("data"))
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY


def test_body_is_not_decoded(site: Site, tmp_path: Path) -> None:
    site.files["data"] = Served(headers={"Content-Encoding": "x-gzip"})
    archive = archive_at(site.url("data"))
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY
    assert site.log[0].encoding == "identity"


def test_full_disk(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site.files["data"] = Served()
    archive = archive_at(site.url("data"), site.url("mirror"))
    cut_short(site, archive, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Usage(9**9, 9**9, 100))
        message = failed_fetch(archive, tmp_path)
    assert f"{len(BODY) - CUT} more bytes are needed, 100 are free" in message
    assert (tmp_path / "data.tar.part").stat().st_size == CUT
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY


def test_disk_fills_up_while_writing(site: Site, tmp_path: Path) -> None:
    site.files["data"] = Served()
    code = """
import resource, signal, sys
from pathlib import Path
from deeplab_bench.data.archives import Archive, DownloadError, fetch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
try:
    fetch(Archive("data.tar", (sys.argv[1],), None, None), Path(sys.argv[2]), progress=False)
except DownloadError as error:
    print(error)
"""
    output = subprocess.run(
        [sys.executable, "-c", code, site.url("data"), str(tmp_path)],
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    assert output.startswith(f"{tmp_path / 'data.tar'}: [Errno")
    assert output.count("\n") == 1
    archive = archive_at(site.url("data"))
    assert fetch(archive, tmp_path, progress=False).read_bytes() == BODY
    assert site.log[-1].range == "bytes=4000-"


def test_killed_process_is_resumed(site: Site, tmp_path: Path) -> None:
    half = 2 * archives.CHUNK_BYTES
    body = os.urandom(2 * half)
    hold = threading.Event()
    site.files["data"] = Served(body, cut=half, hold=hold)
    code = (
        "import sys; from pathlib import Path; from deeplab_bench.data.archives import *;"
        "fetch(Archive('data.tar', (sys.argv[1],), None, None), Path(sys.argv[2]))"
    )
    part = tmp_path / "data.tar.part"
    with subprocess.Popen([sys.executable, "-c", code, site.url("data"), str(tmp_path)]) as child:
        deadline = time.monotonic() + 20
        while not (part.exists() and part.stat().st_size == half) and time.monotonic() < deadline:
            time.sleep(0.02)
        child.terminate()
    hold.set()
    assert child.returncode != 0
    assert [path.name for path in sorted(tmp_path.iterdir())] == [part.name, f"{part.name}.origin"]

    site.files["data"] = Served(body)
    archive = archive_at(site.url("data"), body=body)
    assert fetch(archive, tmp_path, progress=False).read_bytes() == body
    assert site.log[-1].range == f"bytes={half}-"
    assert site.bytes_sent() == len(body)


def test_file_put_there_by_the_user(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data.tar").write_bytes(BODY)
    assert fetch(archive_at(site.url("data")), tmp_path) == tmp_path / "data.tar"
    assert site.log == []


@pytest.mark.parametrize(("content", "problem"), [(b"x", "size is 1"), (BODY[::-1], "sha256 is")])
def test_wrong_file_put_there(site: Site, tmp_path: Path, content: bytes, problem: str) -> None:
    target = tmp_path / "data.tar"
    target.write_bytes(content)
    message = error_of(lambda: fetch(archive_at(site.url("data")), tmp_path))
    assert f"{target}: the {problem}" in message
    assert "remove it" in message
    assert target.read_bytes() == content
    assert site.log == []


def test_folder_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    message = error_of(lambda: fetch(archive_at("http://127.0.0.1:9"), tmp_path / "file"))
    assert str(tmp_path / "file" / "data.tar") in message


def tar_member(name: str, body: bytes = b"body", kind: bytes = tarfile.REGTYPE, link: str = ""):  # type: ignore[no-untyped-def]
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    member.size = len(body) if kind == tarfile.REGTYPE else 0
    return member, io.BytesIO(body)


def make_tar(path: Path, *members: tuple[tarfile.TarInfo, io.BytesIO]) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for member in members:
            archive.addfile(*member)
    return path


def make_zip(path: Path, members: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, body)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


TREE = {"top/a.txt": b"a" * 9000, "top/in/b.txt": b"b", "top/in/deep/c": b"", "topper/d": b"d"}


@pytest.fixture(params=["data.zip", "data.tar", "data.tar.gz"])
def tree_archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / str(request.param)
    if path.suffix == ".zip":
        return make_zip(path, {"top/": b"", **TREE})
    folder = tar_member("top", kind=tarfile.DIRTYPE)
    return make_tar(path, folder, *(tar_member(*item) for item in TREE.items()))


def test_unpacks_everything(tree_archive: Path, tmp_path: Path) -> None:
    unpack(tree_archive, tmp_path / "new" / "out")
    assert contents(tmp_path / "new") == {f"out/{name}": body for name, body in TREE.items()}


@pytest.mark.parametrize("under", ["top", "top/in/"])
def test_unpacks_what_lies_under(tree_archive: Path, tmp_path: Path, under: str) -> None:
    unpack(tree_archive, tmp_path / "out", members_under=under)
    prefix = under.rstrip("/") + "/"
    expected = {k.removeprefix(prefix): v for k, v in TREE.items() if k.startswith(prefix)}
    assert contents(tmp_path / "out") == expected


def test_nothing_lies_under(tree_archive: Path, tmp_path: Path) -> None:
    message = error_of(lambda: unpack(tree_archive, tmp_path / "out", members_under="to"))
    assert "no files in to" in message
    assert not (tmp_path / "out").exists()


def refused(path: Path, folder: Path, under: str | None = None) -> str:
    """Return the error of an archive, and check that it leaves no file behind."""
    message = error_of(lambda: unpack(path, folder, members_under=under))
    assert str(path) in message
    assert "remove the file and run again" in message
    assert list(folder.parent.iterdir()) == []
    return message


@pytest.mark.parametrize(
    "member",
    [
        tar_member("../x"),
        tar_member("in/../../x"),
        tar_member("/tmp/x"),
        tar_member("..\\x"),
        tar_member("x", kind=tarfile.SYMTYPE, link="../outside"),
        tar_member("x", kind=tarfile.SYMTYPE, link="/etc"),
        tar_member("x", kind=tarfile.LNKTYPE, link="../outside"),
        tar_member("x", kind=tarfile.LNKTYPE, link="/etc/passwd"),
        tar_member("x", kind=tarfile.FIFOTYPE),
        tar_member("x", kind=tarfile.CHRTYPE),
        tar_member("x", kind=tarfile.BLKTYPE),
    ],
)
def test_tar_that_escapes(tmp_path: Path, member: tuple[tarfile.TarInfo, io.BytesIO]) -> None:
    path = make_tar(tmp_path / "bad.tar", tar_member("good"), member)
    message = refused(path, tmp_path / "in" / "deep" / "out")
    assert repr(member[0].name) in message


@pytest.mark.parametrize(
    ("kind", "link"), [(tarfile.SYMTYPE, "../other"), (tarfile.LNKTYPE, "other")]
)
def test_tar_link_beyond_what_is_unpacked(tmp_path: Path, kind: bytes, link: str) -> None:
    members = tar_member("other"), tar_member("top/x", kind=kind, link=link)
    path = make_tar(tmp_path / "bad.tar", *members)
    assert "x' " in refused(path, tmp_path / "in" / "out", under="top")


def test_tar_links_inside(tmp_path: Path) -> None:
    path = make_tar(
        tmp_path / "good.tar",
        tar_member("top/in/a"),
        tar_member("top/symbolic", kind=tarfile.SYMTYPE, link="in/a"),
        tar_member("top/hard", kind=tarfile.LNKTYPE, link="top/in/a"),
    )
    unpack(path, tmp_path / "out", members_under="top")
    assert contents(tmp_path / "out") == dict.fromkeys(("in/a", "symbolic", "hard"), b"body")


@pytest.mark.parametrize("name", ["../x", "in/../../x", "/tmp/x", "..\\x", "C:\\x"])
def test_zip_that_escapes(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "bad.zip", {"good": b"", name: b"body"})
    assert repr(name) in refused(path, tmp_path / "in" / "out")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_zip_with_link_or_device(tmp_path: Path, kind: int) -> None:
    path = make_zip(tmp_path / "bad.zip", {"x": b"/etc/passwd"}, mode=kind | 0o777)
    assert "'x' is a link or a device" in refused(path, tmp_path / "in" / "out")


def test_zip_with_wrong_crc(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "bad.zip", {"first": b"fine", "second": b"original"})
    path.write_bytes(path.read_bytes().replace(b"original", b"0riginal"))
    message = refused(path, tmp_path / "in" / "out")
    assert "CRC" in message
    assert "'second'" in message


def test_tar_gz_with_wrong_crc(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "bad.tar.gz", tar_member("random", os.urandom(50_000)))
    damaged = bytearray(path.read_bytes())
    damaged[25_000] ^= 1
    path.write_bytes(damaged)
    assert "CRC" in refused(path, tmp_path / "in" / "out")


def test_tar_with_dangling_hard_link(tmp_path: Path) -> None:
    member = tar_member("x", kind=tarfile.LNKTYPE, link="gone")
    path = make_tar(tmp_path / "bad.tar", tar_member("good"), member)
    assert "'x' links to a file that is not unpacked" in refused(path, tmp_path / "in" / "out")


def test_cut_archive(tree_archive: Path, tmp_path: Path) -> None:
    tree_archive.write_bytes(tree_archive.read_bytes()[:-11000] or tree_archive.read_bytes()[:60])
    refused(tree_archive, tmp_path / "in" / "out")


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz"])
def test_not_an_archive(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"<html>sign in</html>")
    refused(tmp_path / name, tmp_path / "in" / "out")


def test_interrupted_unpack(
    tree_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "in" / "out"

    def interrupt(*_: object, **__: object) -> None:
        assert not folder.exists()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", interrupt)
        patch.setattr(tarfile, "copyfileobj", interrupt)
        with pytest.raises(KeyboardInterrupt):
            unpack(tree_archive, folder)
    assert list(folder.parent.iterdir()) == []


def test_no_room_to_unpack(
    tree_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = tree_archive.stat().st_size
    folder = tmp_path / "in" / "out"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: Usage(9**9, 9**9, size - 1))
        message = error_of(lambda: unpack(tree_archive, folder))
    assert f"{size} more bytes are needed, {size - 1} are free" in message
    assert "run again" in message
    assert list(folder.parent.iterdir()) == []
    unpack(tree_archive, folder)
    assert contents(folder) == TREE


def test_leftovers_of_a_killed_unpack(tree_archive: Path, tmp_path: Path) -> None:
    leftover = tmp_path / "out.tmp" / "half"
    leftover.parent.mkdir()
    leftover.write_bytes(b"ha")
    unpack(tree_archive, tmp_path / "out")
    assert contents(tmp_path / "out") == TREE
    assert not leftover.parent.exists()


def test_folder_in_use_is_left_alone(tree_archive: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine").write_bytes(b"mine")
    message = error_of(lambda: unpack(tree_archive, folder))
    assert f"{folder} already exists" in message
    assert contents(folder) == {"mine": b"mine"}


def test_missing_archive(tmp_path: Path) -> None:
    message = error_of(lambda: unpack(tmp_path / "none.zip", tmp_path / "out"))
    assert "No such file" in message
