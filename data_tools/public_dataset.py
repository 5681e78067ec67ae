"""The public Cu64Zr36 dataset of the SymGNN paper: which files it has, and getting them.

Files were told apart by comparing their atoms: train0 and train1 are one glass labelled twice,
train4, train5 and train6 descend from one melt, the others stand alone. A split goes by glass,
never by file. The files carry no such key, so each is known by its SHA-256.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from mgsym.errors import InputError, MgsymError, UsageError
from mgsym.utils.files import atomic_path, holds_output
from mgsym.utils.progress import Progress, part, silent

URL = "https://github.com/haoyuli02/SymGNN/raw/main/datasets/raw_data"
TIMEOUT = 30.0  # s without a byte
LONGEST = 1800.0  # s for one file, however slowly it comes
LARGEST = 16 << 20  # bytes; the published files have less than 1 MB
CHUNK = 1 << 16  # bytes between two reports of progress


@dataclass(frozen=True)
class PublicFile:
    """One file of the dataset.

    Attributes:
        name: file name.
        glass: the independent glass it shows.
        split: what it is used for by default: train, validation or test.
        sha256: of its bytes, in hexadecimal.
    """

    name: str
    glass: str
    split: str
    sha256: str


# name, glass, split, SHA-256
_TABLE = """
train0 glass_0_1   train      17e71d9599ea0efc0a30470a492d85b0cfcb301060cb7762dff0127b8ee214ac
train1 glass_0_1   train      c9feb236ca670b16269d493ac1a78ee7940bb1b309f8ab3cb093d3e68fdfaddb
train2 glass_2     train      8b80667c6fbc7365c834a6d10e252dfcb24601ab975be6e83883cf8abccdce87
train3 glass_3     validation 733dbee48fe37b0c8ddcc1918e342bf34ade80d3d5fffd8c51a5218cf622d019
train4 glass_4_5_6 train      9517cb1de08afc103001f37151a95f33e18032063eba72ae9935c9f8fc41d1f6
train5 glass_4_5_6 train      f2d3f706fa01209ecb3d54a48a564418a340a70eaf5b1a956f4838a1ce0f3986
train6 glass_4_5_6 train      bfd476cbcce8e8bf83990b42e94d1d771249d5f417f9798eeb0152f6b11c3b8f
test0  glass_test0 test       0828b3128532ff6e4e2bcf2fb4cb1976258d327fd68a5f43910390baf2dc45f0
test1  glass_test1 test       e7a0b757fda235617e9565dac4e3f60575a03dbca548a709ce72b451cb0443d5
"""

FILES: tuple[PublicFile, ...] = tuple(
    PublicFile(f"{stem}.pickle", glass, split, digest)
    for stem, glass, split, digest in map(str.split, _TABLE.strip().splitlines())
)


@dataclass(frozen=True)
class Fetched:
    """What `fetch` did.

    Attributes:
        folder: where the files are.
        downloaded: names of files that were downloaded or copied.
        present: names of files that were there and right.
        skipped: name and reason of each file left out.
    """

    folder: Path
    downloaded: tuple[str, ...] = ()
    present: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()


def sha256(content: bytes | Path) -> str:
    """SHA-256 of bytes, or of a file's bytes, in hexadecimal."""
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identify(content: bytes | str | Path) -> PublicFile | None:
    """Which file of the dataset these bytes (or this file's) are, or None."""
    digest = sha256(content if isinstance(content, bytes) else Path(content))
    return next((file for file in FILES if file.sha256 == digest), None)


def fetch(
    destination: str | Path,
    base: str | Path = URL,
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> Fetched:
    """Bring the dataset's files into a folder, each checked against its published SHA-256.

    Files that are there and right stay; an interrupted download goes on where it stopped.

    Args:
        destination: the folder, made when missing.
        base: http(s) address, or local folder, that holds the files.
        names: files wanted, such as ``["train0", "test1.pickle"]``; all of them unless told
            otherwise, where a local folder may lack the test files.
        progress: told files done, files in all, and ``file=name``.
        overwrite: replace files in `destination` that are not the published ones.

    Raises:
        UsageError: a name is not in the dataset, or another file is in the way.
        InputError: what `base` holds is not the published file.
        MgsymError: the address cannot be reached.
    """
    folder = Path(destination)
    wanted = FILES if names is None else [_by_name(name) for name in names]
    downloaded, present, skipped = [], [], []
    for number, file in enumerate(wanted):
        target = folder / file.name
        report = part(progress, number, len(wanted), file=file.name) or silent
        if _is_there(target, file, overwrite):
            present.append(file.name)
        elif not _is_address(base):
            source = Path(base) / file.name
            if names is None and file.split == "test" and not source.exists():
                skipped.append((file.name, f"not in {base}"))
            else:
                _copy(source, target, file)
                downloaded.append(file.name)
        else:
            _download(f"{str(base).rstrip('/')}/{file.name}", target, file, report)
            downloaded.append(file.name)
        report(1, 1)
    return Fetched(folder, tuple(downloaded), tuple(present), tuple(skipped))


def _by_name(name: str) -> PublicFile:
    file = next((f for f in FILES if name in (f.name, f.name.removesuffix(".pickle"))), None)
    if file is None:
        raise UsageError(
            f"no file {name!r} in the dataset, expected {', '.join(f.name for f in FILES)}"
        )
    return file


def _is_address(base: str | Path) -> bool:
    """Whether `base` is an http(s) address and not a folder."""
    text = str(base)
    if isinstance(base, Path) or "://" not in text:
        return False
    if not text.startswith(("http://", "https://")):
        raise UsageError(f"{text}: expected an http:// or https:// address, or a folder")
    return True


def _is_there(target: Path, file: PublicFile, overwrite: bool) -> bool:
    """Whether the right file is in place; another one there is refused."""
    if not target.exists():
        return False
    if target.is_file() and sha256(target) == file.sha256:
        return True
    if not overwrite or not target.is_file():
        raise UsageError(
            f"{target} exists and is not the published file: move it away or add --overwrite"
        )
    return False


def _copy(source: Path, target: Path, file: PublicFile) -> None:
    """Copy from a local folder, if it is the published file."""
    if not source.is_file():
        raise InputError(
            "no such file: --base must be a folder with the dataset's .pickle files", path=source
        )
    if sha256(source) != file.sha256:
        raise InputError(f"{_not_published(source)}: get it from {URL}/{file.name}", path=source)
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


@holds_output("target")
def _download(url: str, target: Path, file: PublicFile, report: Progress) -> None:
    """Download beside the target, check, and rename into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{file.name}.part")
    if part.is_symlink() or (part.exists() and (not part.is_file() or part.stat().st_nlink > 1)):
        raise UsageError(f"{part} is no file of an earlier download but a link: move it away")
    resumed = _receive(url, part, report)
    if resumed and sha256(part) != file.sha256:
        # what an earlier run left may be of another file: once more from the start
        part.unlink()
        _receive(url, part, report)
    if sha256(part) != file.sha256:
        problem = _not_published(part)
        part.unlink()
        raise InputError(
            f"{problem}; it was deleted. Try again, or download {file.name} by hand and give its "
            "folder with --base FOLDER",
            path=url,
        )
    part.replace(target)


def _not_published(path: Path) -> str:
    """How a file with another hash is described."""
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            return "a Git LFS pointer, not the file itself (git lfs pull fetches it)"
    return f"not the published file (its SHA-256 is {sha256(path)[:12]}…)"


def _receive(url: str, part: Path, report: Progress) -> bool:
    """Fill `part` from the address; whether it went on from bytes that were there.

    Raises:
        MgsymError: the address cannot be reached, or the connection broke; `part` is kept.
    """
    have = part.stat().st_size if part.exists() else 0
    deadline = time.monotonic() + LONGEST
    request = urllib.request.Request(url, headers={"User-Agent": "mgsym"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        opener = urllib.request.build_opener(_SameScheme)
        with opener.open(request, timeout=TIMEOUT) as response:
            resumed = bool(response.status == http.HTTPStatus.PARTIAL_CONTENT)
            start = have if resumed else 0
            total = _told_size(url, response.headers.get("Content-Length"), start)
            _store(response, part, start, lambda done: report(done, total), deadline)
    except urllib.error.HTTPError as error:
        if have and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return True  # nothing is missing, or the part is wrong: the hash tells
        raise _unreachable(url, f"HTTP {error.code} {error.reason}") from error
    except _TooLarge as error:
        part.unlink()
        raise InputError(
            f"more than {LARGEST} bytes, which no published file has; what came was deleted: look "
            "at the address",
            path=url,
        ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _unreachable(url, str(reason) or type(error).__name__) from error
    if total is not None and part.stat().st_size < total:
        raise _unreachable(url, f"the connection broke after {part.stat().st_size} bytes")
    return resumed


class _TooLarge(Exception):
    """More arrived than a published file has."""


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to the scheme it came from: https stays https."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        """The request to follow with.

        Raises:
            URLError: it would leave the scheme.
        """
        scheme = urllib.parse.urlsplit(newurl).scheme
        if scheme != req.type:
            raise urllib.error.URLError(f"it redirects from {req.type} to {scheme}: {newurl[:80]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _told_size(url: str, length: str | None, start: int) -> int | None:
    """How many bytes the whole file has, from the header of what is still to come."""
    if not length:
        return None
    if not (length.isascii() and length.isdigit() and len(length) < 19):
        raise _unreachable(url, f"its Content-Length is {length[:40]!r}, expected a number")
    if start + int(length) > LARGEST:
        raise InputError(
            f"{start + int(length)} bytes, but no published file has more than {LARGEST}: look at "
            "the address",
            path=url,
        )
    return start + int(length)


def _store(
    response: http.client.HTTPResponse,
    part: Path,
    start: int,
    report: Callable[[int], None],
    deadline: float,
) -> None:
    """Write what arrives into `part`, after its first `start` bytes.

    Raises:
        _TooLarge: there is more than a published file has.
        TimeoutError: `deadline` passed.
    """
    # never through a link that somebody put there
    flags = (
        os.O_WRONLY
        | os.O_CREAT
        | getattr(os, "O_NOFOLLOW", 0)
        | (os.O_APPEND if start else os.O_TRUNC)
    )
    with os.fdopen(os.open(part, flags, 0o666), "ab" if start else "wb") as file:
        done = start
        report(done)
        # read1 gives what is there: a server that drips cannot put off the deadline
        while block := response.read1(CHUNK):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not done after {LONGEST:g} s")
            file.write(block)
            done += len(block)
            if done > LARGEST:
                raise _TooLarge
            report(done)


def _unreachable(url: str, reason: str) -> MgsymError:
    return MgsymError(
        f"{url}: cannot be downloaded ({reason}): run it again to go on, or download the files "
        "by hand and give their folder with --base FOLDER"
    )
