"""Files that are to take memory, time, other files or the terminal: one line, exit code 3, at once.

The small files are in tests/cases; what they hold is in their names.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import resource
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import finished

import mgsym
from mgsym.cli.main import main
from mgsym.data_tools.formats import read_frames
from mgsym.data_tools.sample import sample_files

CASES = Path(__file__).resolve().parents[1] / "cases"
SAMPLE = str(sample_files()[0])
SECONDS = 20  # of processor time for a command that takes two
ROOM = 1 << 30  # bytes
HEAD = b'Lattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3'


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a" / "b" / "work"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)


def limited(*arguments: str, room: int = ROOM) -> tuple[int | None, str]:
    """Exit code and messages of a command with a limit of memory and of processor time."""
    limits = {resource.RLIMIT_DATA: room, resource.RLIMIT_CPU: SECONDS}
    code, _, messages = finished(None, *arguments, limits=limits)
    return code, messages


def refused(capsys: pytest.CaptureFixture[str], *arguments: str | Path, code: int = 3) -> str:
    """The one line of a command that must fail."""
    capsys.readouterr()
    assert main([*map(str, arguments)]) == code
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("mgsym: error: ")]
    assert len(lines) == 1
    assert "(a bug" not in err
    assert "Traceback" not in err
    return lines[0]


def npy(kind: str, shape: tuple[int, ...]) -> bytes:
    """An .npy that has only its header."""
    text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return packed.getvalue()


def many_lines() -> bytes:
    return b"50000000\n" + HEAD + b"\n" + b"Cu 0 0 0\n" * 5_000_000


HOSTILE: dict[str, Callable[[], bytes]] = {
    "confusion.pickle": lambda: (CASES / "dtype_confusion.pickle").read_bytes(),
    "memo.pickle": lambda: bytes.fromhex("80027d72000000102e"),
    "bytes.pickle": lambda: b"\x80\x04\x8e" + (2**40).to_bytes(8, "little") + b".",
    "nested.pickle": lambda: b"\x80\x02}" + b")" + b"\x85" * 500_000 + b"K\x01s.",
    "count.xyz": lambda: (CASES / "count.xyz").read_bytes(),
    "width.xyz": lambda: (CASES / "width.xyz").read_bytes(),
    "line.xyz": lambda: b"1\n" + b"a" * 6_000_000,
    "lines.xyz.gz": lambda: gzip.compress(many_lines(), 9),
    "nothing.xyz.gz": lambda: gzip.compress(bytes(200_000_000), 9),
    "line.dump.gz": lambda: gzip.compress(b"ITEM: TIMESTEP\n" + bytes(100_000_000), 9),
    "columns.dump": lambda: (
        b"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS\n"
        b"0 9\n0 9\n0 9\nITEM: ATOMS x y z " + b"".join(b"a%d " % i for i in range(300_000))
    ),
    "shape.npz": lambda: archive({"format.npy": npy("<f8", (10**12,))}),
    "empty.npz": lambda: archive({"format.npy": npy("<U0", (10**12,))}),
    "zeros.npz": lambda: archive(
        {"format.npy": npy("<f8", (20_000_000,)) + bytes(160_000_000)}, zipfile.ZIP_DEFLATED
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_asks_for_much_is_refused_at_once(name: str) -> None:
    Path(name).write_bytes(HOSTILE[name]())
    code, messages = limited("info", name)
    assert code == 3, messages
    assert messages.startswith(f"mgsym: error: {name}")
    assert messages.count("\n") == 1
    assert "memory" not in messages


def test_what_takes_too_much_is_stopped() -> None:
    """The limits of these tests are real: a file that is good asks for more than nothing."""
    Path("good.xyz").write_bytes(b"20000\n" + HEAD + b"\n" + b"Cu 0 0 0\n" * 20_000)
    assert "memory" not in limited("info", "good.xyz")[1]
    assert limited("info", "good.xyz", room=1)[0] != 0


@pytest.mark.parametrize("part", [b"k={ ", b'k=" ', b'"\\" ', b"k=[ ", b"k=' ", b"k= ", b"="])
def test_a_comment_line_takes_a_time_in_proportion(part: bytes) -> None:
    content = b"1\n" + HEAD + b" " + part * (1_000_000 // len(part)) + b"\nCu 0 0 0\n"
    Path("a.xyz").write_bytes(content)
    assert limited("info", "a.xyz")[0] in (0, 3)


class Hungry:
    """Unpickling this takes memory, with a function that torch allows."""

    def __reduce__(self) -> tuple[object, ...]:
        return (bytearray, (1 << 40,))


def test_a_checkpoint_that_asks_for_much(capsys: pytest.CaptureFixture[str]) -> None:
    hungry = pickle.dumps({"format": Hungry()}, 2)
    Path("a.pt").write_bytes(archive({"a/data.pkl": hungry, "a/version": b"3\n"}))
    assert "a.pt: damaged, or not written by mgsym" in refused(capsys, "info", "a.pt")
    Path("a.pt").write_bytes(hungry)
    assert "a.pt: damaged, or not written by mgsym" in refused(capsys, "info", "a.pt")


def test_memory_that_runs_out_names_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("numpy.loadtxt", no_room)
    line = refused(capsys, "info", SAMPLE)
    assert line.startswith(f"mgsym: error: {SAMPLE}: there is not enough memory")


# names


@pytest.mark.parametrize("name", ["trav", "nul", "up", "hidden", "long"])
@pytest.mark.parametrize("command", ["build-graph", "relax", "predict", "explain", "convert"])
def test_names_never_lead_out_of_the_folder(
    command: str, name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    named = {"up": "..", "hidden": ".rc", "long": "x" * 400}
    source = CASES / f"{name}.xyz" if name not in named else CASES / "trav.xyz"
    text = source.read_bytes().replace(b"../../evil", named.get(name, "../../evil").encode())
    Path("glass.xyz").write_bytes(text)
    options = {
        "build-graph": ["-o", "folder"],
        "relax": ["-o", "folder", "--max-steps", "0", "--device", "cpu"],
        "predict": ["-o", "folder", "--device", "cpu"],
        "explain": ["--node", "1", "-o", "folder", "--device", "cpu"],
        "convert": ["-o", "folder", "--format", "extxyz"],
    }
    if command == "convert":
        Path("folder").mkdir()
    line = refused(capsys, command, "glass.xyz", *options[command])
    assert "a structure is called" in line
    assert "file name" in line
    written = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert [p.name for p in written] == ["glass.xyz"]


def test_an_empty_name_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(CASES / "empty.xyz", "glass7.xyz")
    assert main(["info", "glass7.xyz", "--json"]) == 0
    (described,) = json.loads(capsys.readouterr().out)[0]["structures"]
    # the file's name where it gives none, and not the pair that follows
    assert (described["name"], described["glass"]) == ("glass7", "tiny")


@pytest.mark.parametrize("name", ["esc.xyz", "nul.xyz"])
def test_control_characters_are_shown_escaped(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ([], ["--json"]):
        assert main(["info", str(CASES / name), *options]) == 0
        out, err = capsys.readouterr()
        assert all(c.isprintable() or c == "\n" for c in out + err)
    main(["build-graph", str(CASES / name)])
    out, err = capsys.readouterr()
    assert all(c.isprintable() or c == "\n" for c in out + err)
    assert "\\x" in err or out


def test_names_of_files_need_not_be_text(trained_folder: Path) -> None:
    odd = os.fsdecode(b"gl\xffass.xyz")
    try:
        shutil.copy(SAMPLE, odd)
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    text = Path(odd).read_text().splitlines(keepends=True)
    text[1] = text[1].replace("name=", "was=")
    Path(odd).write_text("".join(text))
    assert main(["convert", odd, "-o", "a.xyz"]) == 0
    assert mgsym.read("a.xyz").name == "gl�ass"
    assert main(["predict", odd, "-o", "out", "--device", "cpu"]) == 0
    assert [p.name for p in Path("out").iterdir()] == ["gl�ass.extxyz"]
    graphs = os.fsdecode(b"gr\xffaphs")
    shutil.copytree(trained_folder / "graphs", graphs)
    run = os.fsdecode(b"r\xffun")
    options = ["--epochs", "1", "--device", "cpu", "--model", "mlp", "-o", run]
    assert main(["train", graphs, *options]) == 0
    assert json.loads(Path(run, "run.json").read_text())["status"] == "finished"
    assert main(["info", run]) == 0


# tables and numbers


def test_a_damaged_stream_of_labels(capsys: pytest.CaptureFixture[str]) -> None:
    labels = CASES / "flip.csv.gz"
    line = refused(capsys, "build-graph", SAMPLE, "--labels", labels)
    assert "flip.csv.gz: the compressed file is cut short or damaged" in line


def test_a_damaged_stream_of_searches(capsys: pytest.CaptureFixture[str]) -> None:
    packed = bytearray(gzip.compress(b"# mgsym events {}\n" * 500))
    packed[20:40] = bytes(20)
    Path("a.events.csv.gz").write_bytes(packed)
    line = refused(capsys, "merge", SAMPLE, "a.events.csv.gz", "-o", "b.xyz")
    assert "a.events.csv.gz: the compressed file is cut short or damaged" in line


def test_fields_that_are_too_long(capsys: pytest.CaptureFixture[str]) -> None:
    Path("labels.csv").write_text(f"id,barrier\n1,{'5' * 200_000}\n")
    line = refused(capsys, "build-graph", SAMPLE, "--labels", "labels.csv")
    assert "labels.csv, line 2: is no CSV table: field larger than field limit" in line


def test_searches_of_more_atoms_than_there_can_be(capsys: pytest.CaptureFixture[str]) -> None:
    heading = {
        "format": 1, "structure": "a", "potential": "b", "seed": 0, "settings": {},
        "atoms": 10**30, "rows": "all", "searches": 2,
    }  # fmt: skip
    Path("a.events.csv").write_text(f"# mgsym events {json.dumps(heading)}\n")
    line = refused(capsys, "merge", SAMPLE, "a.events.csv", "-o", "b.xyz")
    assert "a.events.csv, line 1: the heading is damaged (1000000" in line


@pytest.mark.parametrize("frames", ["9" * 30, f"-{'9' * 30}", f"{'9' * 30}:", f"1:2:{'9' * 30}"])
def test_frames_that_no_file_has(frames: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert f"no frame {frames}" in refused(capsys, "info", SAMPLE, "--frames", frames)


def test_the_last_of_many_frames_is_one(tmp_path: Path) -> None:
    frames = [mgsym.read(SAMPLE), mgsym.read(SAMPLE).replace(name="last")]
    mgsym.write(frames, "many.xyz")
    assert mgsym.read("many.xyz").name == "last"
    assert [s.name for s in read_frames("many.xyz", frames="-2:")][1] == "last"


def test_pipes_are_no_files(capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.xyz")
    assert "pipe.xyz: is no regular file" in refused(capsys, "info", "pipe.xyz")


def test_tables_longer_than_a_block(tmp_path: Path) -> None:
    """A table is read in blocks of rows, which join without a seam."""
    side = torch.arange(52.0)
    sites = torch.cartesian_prod(side, side, torch.arange(26.0))
    count = len(sites)
    assert count > 1 << 16
    structure = mgsym.Structure(
        positions=sites, cell=torch.diag(torch.tensor([52.0, 52, 26])),
        types=torch.zeros(count), species=("Cu",),
    )  # fmt: skip
    mgsym.write([structure, structure], "a.xyz")
    for frame in read_frames("a.xyz"):
        assert torch.equal(frame.positions, structure.positions)
    lines = Path("a.xyz").read_text().splitlines(keepends=True)
    lines[70_001] = "Cu 1 2 x 3\n"
    Path("a.xyz").write_text("".join(lines))
    with pytest.raises(mgsym.InputError, match="line 70002: pos must be a number, found 'x'"):
        mgsym.read("a.xyz", frame=0)
    Path("a.xyz").write_text("".join(lines[:70_000]))
    with pytest.raises(mgsym.InputError, match=f"expected {count} atoms, found 69998"):
        mgsym.read("a.xyz", frame=0)


def test_values_of_pickles_are_those_of_numpy(tmp_path: Path) -> None:
    """Stand-ins make the arrays that NumPy itself would, in every order of bytes and rows."""
    random = np.random.default_rng(0)
    positions = random.random((6, 3)) * 8 - 4
    for kind in ("<f8", ">f8", "<f4", ">f4"):
        for order in ("C", "F"):
            for protocol in (2, 3, 4, 5):
                content = {
                    "positions": np.array(positions, kind, order=order),
                    "box": np.array([8, 9, 10], ">i2"),
                    "types": np.array([1, 2, 1, 2, 1, 2], "u1"),
                }
                Path("a.pickle").write_bytes(pickle.dumps(content, protocol))
                found = mgsym.read("a.pickle")
                assert np.array_equal(found.positions.numpy(), content["positions"])
                assert found.cell.diagonal().tolist() == [8, 9, 10]
                assert found.symbols == ["Cu", "Zr"] * 3
