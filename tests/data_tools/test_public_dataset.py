"""Fetching the public dataset, from a small server on this machine that misbehaves on demand."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mgsym.data_tools import public_dataset
from mgsym.data_tools.public_dataset import PublicFile, fetch, identify
from mgsym.errors import InputError, MgsymError, UsageError
from mgsym.utils.files import lock_output

CONTENT = {
    "train0.pickle": bytes(range(256)) * 2000,
    "train1.pickle": b"one" * 1000,
    "test0.pickle": b"held out" * 100,
}


class Server(ThreadingHTTPServer):
    """Serves CONTENT and remembers what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str]] = []
        self.content = dict(CONTENT)
        self.ranges = True  # whether Range is honoured
        self.cut = 0  # bytes after which the connection breaks, once

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range", "")
        self.server.requests.append((self.path, asked))
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
            return
        content = self.server.content.get(self.path.removeprefix("/"))
        if content is None:
            self.send_error(404)
            return
        start = int(asked[6:-1]) if asked and self.server.ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + self.server.cut if self.server.cut else len(content)
        self.server.cut = 0
        self.wfile.write(content[start:end])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    table = tuple(
        PublicFile(name, "glass", "test" if "test" in name else "train", digest(content))
        for name, content in CONTENT.items()
    )
    monkeypatch.setattr(public_dataset, "FILES", table)
    for variable in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_downloads_once_and_reports_progress(tmp_path: Path, server: Server) -> None:
    reports: list[tuple[float, float | None, object]] = []

    def progress(done: float, total: float | None = None, **info: object) -> None:
        reports.append((done, total, info["file"]))

    result = fetch(tmp_path / "data", server.address, progress=progress)
    assert result.downloaded == tuple(CONTENT)
    assert result.folder == tmp_path / "data"
    for name, content in CONTENT.items():
        assert (tmp_path / "data" / name).read_bytes() == content
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == sorted(CONTENT)
    assert reports[0] == (0, 3, "train0.pickle")
    assert reports[-1] == (3, 3, "test0.pickle")
    assert [done for done, _, _ in reports] == sorted(done for done, _, _ in reports)
    assert any(0 < done < 1 for done, _, _ in reports)

    asked = len(server.requests)
    again = fetch(tmp_path / "data", server.address)
    assert (again.downloaded, again.present) == ((), tuple(CONTENT))
    assert len(server.requests) == asked


def test_only_files_asked_for(tmp_path: Path, server: Server) -> None:
    result = fetch(tmp_path, server.address, names=["train1", "test0.pickle"])
    assert result.downloaded == ("train1.pickle", "test0.pickle")
    with pytest.raises(UsageError, match="no file 'train9' in the dataset, expected train0"):
        fetch(tmp_path, server.address, names=["train9"])


def test_redirects_are_followed(tmp_path: Path, server: Server) -> None:
    assert fetch(tmp_path, f"{server.address}/moved/").downloaded == tuple(CONTENT)


def test_a_broken_connection_is_resumed(tmp_path: Path, server: Server) -> None:
    server.cut = 1000
    with pytest.raises(MgsymError, match=r"the connection broke after 1000 bytes.*run it"):
        fetch(tmp_path, server.address, names=["train0"])
    assert (tmp_path / "train0.pickle.part").stat().st_size == 1000
    fetch(tmp_path, server.address, names=["train0"])
    assert server.requests[-1] == ("/train0.pickle", "bytes=1000-")
    assert (tmp_path / "train0.pickle").read_bytes() == CONTENT["train0.pickle"]
    assert not (tmp_path / "train0.pickle.part").exists()


def test_resuming_through_a_redirect(tmp_path: Path, server: Server) -> None:
    (tmp_path / "train0.pickle.part").write_bytes(CONTENT["train0.pickle"][:777])
    fetch(tmp_path, f"{server.address}/moved", names=["train0"])
    assert server.requests[-1] == ("/train0.pickle", "bytes=777-")
    assert (tmp_path / "train0.pickle").read_bytes() == CONTENT["train0.pickle"]


def test_a_server_without_ranges_starts_again(tmp_path: Path, server: Server) -> None:
    server.ranges = False
    (tmp_path / "train0.pickle.part").write_bytes(b"x" * 500)
    fetch(tmp_path, server.address, names=["train0"])
    assert (tmp_path / "train0.pickle").read_bytes() == CONTENT["train0.pickle"]


@pytest.mark.parametrize("stale", [b"x" * 500, CONTENT["train1.pickle"], b"y" * 9000])
def test_what_an_earlier_run_left_is_checked(tmp_path: Path, server: Server, stale: bytes) -> None:
    # other bytes, the whole file, more than the whole file
    (tmp_path / "train1.pickle.part").write_bytes(stale)
    fetch(tmp_path, server.address, names=["train1"])
    assert (tmp_path / "train1.pickle").read_bytes() == CONTENT["train1.pickle"]


def test_another_file_at_the_address_is_refused(tmp_path: Path, server: Server) -> None:
    server.content["train0.pickle"] = b"<html>"
    with pytest.raises(InputError, match=r"train0\.pickle: not the published file .*--base FOLDER"):
        fetch(tmp_path, server.address)
    assert list(tmp_path.iterdir()) == []
    server.content["train0.pickle"] = b"version https://git-lfs.github.com/spec/v1\n"
    with pytest.raises(InputError, match="a Git LFS pointer, not the file itself"):
        fetch(tmp_path, server.address)


def test_addresses_that_do_not_answer(tmp_path: Path, server: Server) -> None:
    wrong = f"{server.address}/elsewhere"
    with pytest.raises(
        MgsymError, match=r"elsewhere/train0\.pickle: .*HTTP 404.*--base FOLDER"
    ) as e:
        fetch(tmp_path, wrong)
    assert e.value.exit_code == 1
    with pytest.raises(MgsymError, match=r"127\.0\.0\.1:1/train0\.pickle: cannot be downloaded \("):
        fetch(tmp_path, "http://127.0.0.1:1")
    with pytest.raises(UsageError, match="expected an http:// or https:// address, or a folder"):
        fetch(tmp_path, "ftp://127.0.0.1/")


def test_a_silent_server_times_out(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    monkeypatch.setattr(Handler, "do_GET", lambda handler: release.wait(5))
    monkeypatch.setattr(public_dataset, "TIMEOUT", 0.2)
    with pytest.raises(MgsymError, match=r"cannot be downloaded \(.*timed out"):
        fetch(tmp_path, server.address)
    release.set()


def answers(status: int, headers: dict[str, str], body: bytes = b"") -> Callable[[Handler], None]:
    """A server's way to answer everything."""

    def answer(handler: Handler) -> None:
        handler.server.requests.append((handler.path, ""))
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        with suppress(OSError):  # nobody listens any more
            handler.wfile.write(body)

    return answer


@pytest.mark.parametrize("length", ["many", "-5", "1e3", "٣", "9" * 40, "0x10", "12 34"])
def test_a_length_that_is_no_number(
    length: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Content-Length": length.encode().decode("latin-1")}
    monkeypatch.setattr(Handler, "do_GET", answers(200, headers, b"abc"))
    with pytest.raises(MgsymError, match=r"its Content-Length is '.*expected a number") as caught:
        fetch(tmp_path, server.address)
    assert caught.value.exit_code == 1
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_more_than_a_published_file_has_is_not_begun(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = public_dataset.LARGEST + 1
    monkeypatch.setattr(Handler, "do_GET", answers(200, {"Content-Length": str(size)}, b"abc"))
    with pytest.raises(InputError, match=f"{size} bytes, but no published file has more than"):
        fetch(tmp_path, server.address)
    assert list(tmp_path.iterdir()) == []


def test_more_than_a_published_file_has_is_stopped(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the server does not say how much it is, and where a part is there already."""
    monkeypatch.setattr(public_dataset, "LARGEST", 100_000)
    monkeypatch.setattr(Handler, "do_GET", answers(200, {}, bytes(200_000)))
    with pytest.raises(InputError, match=r"more than 100000 bytes, .*deleted: look at the address"):
        fetch(tmp_path, server.address)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "train0.pickle.part").write_bytes(bytes(90_000))
    monkeypatch.setattr(Handler, "do_GET", answers(206, {}, bytes(20_000)))
    with pytest.raises(InputError, match="more than 100000 bytes"):
        fetch(tmp_path, server.address)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_drips_is_left_in_the_end(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.end_headers()
        with suppress(OSError):
            while not ended.wait(0.02):
                handler.wfile.write(b"x")

    monkeypatch.setattr(Handler, "do_GET", drip)
    monkeypatch.setattr(public_dataset, "LONGEST", 0.3)
    with pytest.raises(MgsymError, match=r"cannot be downloaded \(not done after 0\.3 s\)"):
        fetch(tmp_path, server.address)
    ended.set()


@pytest.mark.parametrize("there", ["file:///etc/passwd", "ftp://127.0.0.1/a", "https://127.0.0.1/"])
def test_redirects_keep_the_scheme(
    there: str, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "do_GET", answers(302, {"Location": there}))
    with pytest.raises(MgsymError, match="cannot be downloaded") as caught:
        fetch(tmp_path, server.address)
    assert there[:6] in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_through_links(tmp_path: Path, server: Server) -> None:
    dear, data = tmp_path / "dear.txt", tmp_path / "data"
    data.mkdir()
    part = data / "train0.pickle.part"
    for make in (part.symlink_to, part.hardlink_to):
        dear.write_text("dear")
        make(dear)
        with pytest.raises(UsageError, match=r"train0\.pickle\.part is no file of an earlier down"):
            fetch(data, server.address, names=["train0"])
        assert dear.read_text() == "dear"
        part.unlink()
    part.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="but a link"):
        fetch(data, server.address, names=["train0"])
    assert not (tmp_path / "nowhere").exists()
    assert server.requests == []


def test_two_programs_at_one_file(tmp_path: Path, server: Server) -> None:
    with (
        lock_output(tmp_path / "train0.pickle"),
        pytest.raises(UsageError, match=r"train0\.pickle is being written by another mgsym"),
    ):
        fetch(tmp_path, server.address, names=["train0"])
    assert fetch(tmp_path, server.address, names=["train0"]).downloaded == ("train0.pickle",)


def test_a_local_folder_may_lack_the_test_files(tmp_path: Path, server: Server) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for name in ("train0.pickle", "train1.pickle"):
        (source / name).write_bytes(CONTENT[name])
    result = fetch(target, source)
    assert result.downloaded == ("train0.pickle", "train1.pickle")
    assert result.skipped == (("test0.pickle", f"not in {source}"),)
    assert server.requests == []
    with pytest.raises(InputError, match=r"test0\.pickle: no such file: --base must be a folder"):
        fetch(target, source, names=["test0"])
    (source / "train1.pickle").unlink()
    assert fetch(target, str(source)).present == ("train0.pickle", "train1.pickle")
    with pytest.raises(InputError, match=r"train1\.pickle: no such file"):
        fetch(tmp_path / "other", source)
    (source / "train0.pickle").write_bytes(b"something else")
    with pytest.raises(InputError, match=r"source/train0\.pickle: not the published file"):
        fetch(tmp_path / "third", source)


def test_other_files_in_the_way_stay(tmp_path: Path, server: Server) -> None:
    (tmp_path / "train0.pickle").write_bytes(b"mine")
    with pytest.raises(UsageError, match=r"exists and is not the published file.*--overwrite"):
        fetch(tmp_path, server.address)
    assert (tmp_path / "train0.pickle").read_bytes() == b"mine"
    fetch(tmp_path, server.address, overwrite=True)
    assert (tmp_path / "train0.pickle").read_bytes() == CONTENT["train0.pickle"]


def test_files_are_known_by_their_bytes(tmp_path: Path, server: Server) -> None:
    found = identify(CONTENT["train1.pickle"])
    assert found is not None
    assert found.name == "train1.pickle"
    (tmp_path / "renamed").write_bytes(CONTENT["train1.pickle"])
    assert identify(tmp_path / "renamed") == found
    assert identify(b"") is None


def test_the_table_is_whole() -> None:
    assert len({f.sha256 for f in public_dataset.FILES}) == 9
    assert all(re.fullmatch(r"[0-9a-f]{64}", f.sha256) for f in public_dataset.FILES)


def test_the_published_files_match_the_table(public_data: Path, tmp_path: Path) -> None:
    result = fetch(tmp_path, public_data)
    assert set(result.downloaded) >= {f"train{i}.pickle" for i in range(7)}
