"""Every way to misuse a command is one line on stderr, its exit code, and nothing left behind."""

from __future__ import annotations

import errno
import gzip
import os
import pickle
import resource
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from programs import finished

from mgsym.cli.main import main
from mgsym.data_tools.sample import sample_files

SAMPLE = str(sample_files()[0])
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must fail with one line and leave every file as it was; the line."""

    def check(code: int, *arguments: str | Path) -> str:
        before = tree()
        capsys.readouterr()
        assert main([*map(str, arguments), "-q"]) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("mgsym: error: ")
        assert err.count("\n") == 1
        assert "(a bug" not in err
        assert "Traceback" not in err
        assert tree() == before
        return err

    return check


def tree() -> dict[str, bytes | None]:
    """All files below the working folder with what they hold; folders hold nothing."""
    return {str(p): p.read_bytes() if p.is_file() else None for p in sorted(Path().rglob("*"))}


def dump(
    rows: list[str], count: int | None = None, bounds: str = "0 20", columns: str = "id type x y z"
) -> str:
    return (
        f"ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n{len(rows) if count is None else count}\n"
        f"ITEM: BOX BOUNDS pp pp pp\n0 20\n0 20\n{bounds}\nITEM: ATOMS {columns}\n"
        + "".join(f"{row}\n" for row in rows)
    )


def xyz(rows: list[str], lattice: str = "9 0 0 0 9 0 0 0 9", count: int | None = None) -> str:
    header = f'Lattice="{lattice}" Properties=species:S:1:pos:R:3'
    return f"{len(rows) if count is None else count}\n{header}\n" + "".join(f"{r}\n" for r in rows)


# a command line of each command that uses a model, for a folder that holds graphs/
USES = {
    "predict": ["predict", SAMPLE, "--run", "RUN"],
    "evaluate": ["evaluate", "RUN", "graphs"],
    "explain": ["explain", "--node", "3", "--run", "RUN"],
    "check": ["check", "RUN"],
}
uses_a_model = pytest.mark.parametrize("arguments", USES.values(), ids=USES)
ROWS = ["1 1 0 0 0", "2 2 3 0 0", "3 1 6 0 0"]
ATOMS = ["Cu 0 0 0", "Zr 3 0 0"]
DATA = (
    "title, units = {units}\n\n1 atoms\n1 atom types\n\n0 9 xlo xhi\n0 9 ylo yhi\n0 9 zlo zhi\n\n"
)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("glass.txt", "some notes\n", "not a structure file known here, expected one of"),
        ("glass.dump", "", "the file is empty"),
        ("glass.dump", dump(ROWS)[:-9], "cut short"),
        ("glass.dump", dump(ROWS)[:60], "cut short"),
        ("glass.dump", dump(ROWS, count=5), "expected 5 atoms, found 3"),
        ("glass.dump", dump([*ROWS, "4 1 nan 0 0"]), "NaN or infinite"),
        ("glass.dump", dump([*ROWS, "4 1 0 -inf 0"]), "NaN or infinite"),
        ("glass.dump", dump([*ROWS, "4 1 0 zero 0"]), "line 13: y must be a number, found 'zero'"),
        ("glass.dump", dump(ROWS, bounds="5 5"), "no volume"),
        ("glass.dump", dump([*ROWS, "3 1 9 0 0"]), "atom id 3 occurs more than once"),
        ("glass.dump", dump([*ROWS, "4 7 9 0 0"]), "type 7 has no element: add --types"),
        ("glass.dump", dump([*ROWS, "4 1 6.2 0 0"]), "0.200 Å apart, expected at least 0.5 Å"),
        ("glass.dump", "ITEM: UNITS\nreal\n" + dump(ROWS), "units are real, expected metal"),
        ("glass.data", DATA.format(units="lj"), "units are lj, expected metal"),
        ("glass.xyz", xyz(ATOMS, "0 9 0 9 0 0 0 0 9"), "left-handed"),
        ("glass.xyz", xyz(ATOMS, "9 0 0 9 0 0 0 0 9"), "no volume"),
        ("glass.xyz", xyz(ATOMS, count=3), "expected 3 atoms, found 2"),
        ("glass.xyz", xyz([*ATOMS, "Xx 6 0 0"]), "'Xx' is not an element"),
    ],
)
def test_a_bad_structure_file(name: str, content: str, words: str, refused: Refused) -> None:
    Path(name).write_text(content)
    # the good file first: it must not be written alone
    line = refused(3, "build-graph", SAMPLE, name, "--types", "1=Cu,2=Zr")
    assert name.removesuffix(".dump").removesuffix(".xyz") in line
    assert words in line


def test_a_missing_file(refused: Refused) -> None:
    assert "absent.dump: no such file" in refused(3, "build-graph", "absent.dump")


def test_a_folder_for_a_file(refused: Refused) -> None:
    Path("folder").mkdir()
    assert "folder: is a folder, expected a file" in refused(3, "build-graph", "folder")


def test_a_damaged_compressed_file(refused: Refused) -> None:
    Path("glass.dump.gz").write_bytes(gzip.compress(dump(ROWS).encode())[:-12])
    line = refused(3, "build-graph", "glass.dump.gz", "--types", "1=Cu,2=Zr")
    assert "glass.dump.gz" in line


class Hostile:
    """Unpickling this makes a folder."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, ("executed",))


def test_a_pickle_that_would_run_code(refused: Refused) -> None:
    Path("glass.pickle").write_bytes(pickle.dumps({"positions": Hostile()}))
    assert "glass.pickle: " in refused(3, "build-graph", "glass.pickle")
    assert not Path("executed").exists()


def test_arrays_that_would_run_code(refused: Refused) -> None:
    np.savez("glass.npz", format=np.array([Hostile()], dtype=object))
    assert "glass.npz: " in refused(3, "info", "glass.npz")
    assert "glass.npz: " in refused(3, "build-graph", "glass.npz")
    assert not Path("executed").exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("id,barrier\n1,1.5\n1,1.6\n", "labels.csv, line 3: atom id 1 again"),
        ("id,barrier\n9999,1.5\n", "labels.csv, line 2: the structure has no atom with id 9999"),
        ("id,barrier\n1,high\n", "labels.csv, line 2: barrier must be a number in eV"),
        ("atom,barrier\n1,1.5\n", "labels.csv, line 1: no column 'id'"),
        ("", "labels.csv: the file is empty"),
    ],
)
def test_a_bad_table_of_labels(table: str, words: str, refused: Refused) -> None:
    Path("labels.csv").write_text(table)
    assert words in refused(3, "build-graph", SAMPLE, "--labels", "labels.csv")


def test_a_missing_table_of_labels(refused: Refused) -> None:
    assert "absent.csv: no such file" in refused(3, "build-graph", SAMPLE, "--labels", "absent.csv")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--types", "1=Copper"], "is not number=element; expected 1=Cu,2=Zr"),
        (["--frames", "first"], "expected a number such as 0 or -1"),
        (["--cutoff", "0"], "0.0 is not in the range x>0"),
        (["--cutof", "4"], "--cutoff"),
        (["--split", "training"], "'training' is not one of 'train', 'validation', 'test'"),
        (["--device", "tpu"], "device 'tpu' is not known: give auto, cpu, cuda or cuda:N"),
        (["--device", "cuda:99"], "device cuda:99"),
        (["--jobs", "0"], "0 is not in the range x>=1"),
    ],
)
def test_a_bad_option(options: list[str], words: str, refused: Refused) -> None:
    assert words in refused(2, "build-graph", SAMPLE, *options)


def test_a_gpu_that_is_not_there(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    line = refused(2, "build-graph", "--device", "cuda")
    assert "PyTorch sees no GPU here: give --device cpu or auto" in line


def test_a_frame_that_is_not_there(refused: Refused) -> None:
    assert "no frame 3" in refused(3, "build-graph", SAMPLE, "--frames", "3")


def test_a_column_that_is_not_there(refused: Refused) -> None:
    line = refused(3, "build-graph", SAMPLE, "--target", "barier")
    assert "no structure has a column 'barier', found barrier, barrier_stderr, events" in line


def test_a_cutoff_that_is_no_number(refused: Refused) -> None:
    assert "cutoff" in refused(3, "build-graph", SAMPLE, "--cutoff", "nan")


@pytest.mark.parametrize("command", ["trian", "buildgraph"])
def test_a_misspelt_command(command: str, refused: Refused) -> None:
    assert "did you mean" in refused(2, command)


def test_two_files_of_one_name(refused: Refused) -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        Path(folder, "glass.xyz").write_text(xyz(ATOMS))
    line = refused(2, "build-graph", "a/glass.xyz", "b/glass.xyz")
    assert "two structures are called glass: rename a file" in line


def test_existing_output(refused: Refused) -> None:
    assert main(["build-graph", "-q"]) == 0
    line = refused(2, "build-graph", "--cutoff", "4")
    assert "graphs/test.npz exists already (and 4 more): add --overwrite" in line


def test_output_that_cannot_be_a_folder(refused: Refused) -> None:
    Path("graphs").write_text("notes")
    assert "graphs is a file, expected a folder" in refused(2, "build-graph")
    assert "graphs/deep: not a directory" in refused(1, "build-graph", "-o", "graphs/deep")


def test_a_damaged_graph(refused: Refused) -> None:
    assert main(["build-graph", "-q"]) == 0
    file = Path("graphs/train_a.npz")
    file.write_bytes(file.read_bytes()[:-500])
    assert "graphs/train_a.npz: not an .npz file of mgsym's" in refused(3, "info", "graphs")


def _no_space(*_: object, **__: object) -> NoReturn:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numpy.savez", _no_space)
    line = refused(1, "build-graph")
    assert "no space left on device: make room, or write elsewhere with -o" in line
    assert "error: graphs/test.npz: " in line


def test_a_full_disk_keeps_the_older_output(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["build-graph", "-q"]) == 0
    monkeypatch.setattr("numpy.savez", _no_space)
    refused(1, "build-graph", "--overwrite")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing(
    number: signal.Signals,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One signal, while several graphs may be being written."""
    savez, main_thread = np.savez, threading.main_thread().ident
    assert main_thread is not None
    first = threading.Lock()

    def interrupted(*arguments: Any, **arrays: Any) -> None:
        savez(*arguments, **arrays)
        if first.acquire(blocking=False):
            signal.pthread_kill(main_thread, number)

    monkeypatch.setattr("numpy.savez", interrupted)
    # what a shell starts with & is told to ignore Ctrl-C, and so would these tests
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert main(["build-graph", "-q"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "mgsym: interrupted\n"
    assert tree() == {}


def test_a_file_that_grows_too_large() -> None:
    """As on a full disk, the write itself fails, half way through a file."""
    code, _, told = finished(None, "build-graph", "-q", limits={resource.RLIMIT_FSIZE: 100_000})
    assert code == 1
    assert told.count("\n") == 1
    assert "graphs/test.npz: file too large" in told
    assert tree() == {}


# what trains, and what uses a model


@pytest.fixture
def trained(trained_folder: Path) -> Path:
    """A run in runs/first, and the graphs it was trained on in graphs."""
    shutil.copytree(trained_folder, ".", dirs_exist_ok=True)
    return Path("runs/first")


def with_run(arguments: list[str], run: str) -> list[str]:
    return [run if argument == "RUN" else argument for argument in arguments]


def test_training_without_graphs(refused: Refused) -> None:
    line = refused(3, "train")
    assert "graphs" in line
    assert "mgsym build-graph" in line


def test_training_on_an_empty_folder(refused: Refused) -> None:
    Path("graphs").mkdir()
    assert "mgsym build-graph" in refused(3, "train")


def test_training_on_a_damaged_graph(trained: Path, refused: Refused) -> None:
    file = Path("graphs/b.npz")
    file.write_bytes(file.read_bytes()[:-200])
    assert "graphs/b.npz: not an .npz file of mgsym's" in refused(3, "train")


def test_training_without_labels(refused: Refused) -> None:
    Path("glass.xyz").write_text(xyz(ATOMS))
    assert main(["build-graph", "glass.xyz", "-q"]) == 0
    line = refused(3, "train")
    assert "label" in line


def test_training_over_a_run(trained: Path, refused: Refused) -> None:
    line = refused(2, "train", "-o", trained, "--epochs", "1")
    assert "runs/first" in line
    assert "--overwrite" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--set", "training.epoch=3"], "training.epochs"),
        (["--set", "training.epochs=many"], "training.epochs"),
        (["--preset", "fastest"], "fast"),
        (["--test", "zzz"], "zzz"),
        (["--epochs", "0"], "0 is not in the range x>=1"),
        (["--epoch", "3"], "--epochs"),
    ],
)
def test_a_bad_setting(options: list[str], words: str, trained: Path, refused: Refused) -> None:
    assert words in refused(2, "train", *options)


def test_a_bad_settings_file(trained: Path, refused: Refused) -> None:
    Path("own.toml").write_text("[training]\nepoch = 3\n")
    line = refused(2, "train", "--config", "own.toml")
    assert "own.toml" in line
    assert "epoch" in line


DAMAGED_TOML = {
    "encoding": (b'preset = "f\xffst"', "not a TOML file: byte 11 is not UTF-8"),
    "utf-16": ('preset = "fast"'.encode("utf-16"), "not a TOML file: byte 0 is not UTF-8"),
    "nesting": (b"a = " + b"[" * 100_000, "nested too deeply"),
    "tables": (b"[" + b"a." * 10_000 + b"a]", "own.toml: "),
    "digits": (b"[training]\nepochs = " + b"9" * 5000, "training.epochs is a number with too many"),
    "huge": (b"[training]\nepochs = " + b"9" * 40, "training.epochs"),
    "huge seed": (b"seed = " + b"9" * 40, "seed"),
    "infinite": (b"[training]\nlearning_rate = inf", "training.learning_rate"),
    "size": (b"#" * 1_000_001, "no file of settings: longer than 1,000,000 bytes"),
    "nul": (b'preset = "fa\0st"', "not a TOML file"),
    "type": (b"training = 3", "training"),
}


@pytest.mark.parametrize("damage", DAMAGED_TOML)
def test_a_damaged_settings_file(damage: str, trained: Path, refused: Refused) -> None:
    content, words = DAMAGED_TOML[damage]
    Path("own.toml").write_bytes(content)
    line = refused(2, "train", "--config", "own.toml")
    assert words in line
    assert len(line) < 800  # it may name all settings that there are


@pytest.mark.parametrize("damage", ["encoding", "nesting", "digits", "size"])
def test_a_damaged_configuration_of_a_run(damage: str, trained: Path, refused: Refused) -> None:
    content, words = DAMAGED_TOML[damage]
    Path(trained, "config.toml").write_bytes(content)
    line = refused(3, "info", trained)
    assert "config.toml: " in line
    assert words in line
    assert len(line) < 600


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (f"training.epochs={'9' * 5000}", "'training.epochs' is '9999"),
        (f"training.epochs={'9' * 40}", "training.epochs"),
        (f"training.epochs={'[' * 50_000}", "training.epochs"),
        ("training.learning_rate=nan", "training.learning_rate"),
        (f"seed={2**63}", "seed"),
    ],
)
def test_a_setting_that_no_number_holds(
    setting: str, words: str, trained: Path, refused: Refused
) -> None:
    line = refused(2, "train", "--set", setting)
    assert words in line
    assert len(line) < 600


def test_training_on_a_gpu_that_is_not_there(
    trained: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "PyTorch sees no GPU here" in refused(2, "train", "--device", "cuda")


@pytest.mark.parametrize(
    "command", [["train", "--epochs", "1", "-o", "new"], ["ensemble", "runs/first", "-o", "new.pt"]]
)
def test_a_full_disk_where_models_are_written(
    command: list[str], trained: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", _no_space)
    line = refused(1, *command)
    assert "error: new" in line
    assert "no space left on device: make room" in line
    assert not [path for path in Path().rglob(".*") if path.is_file()]
    assert not list(Path().glob("new*.pt"))


def test_a_disk_that_fills_while_training(trained: Path) -> None:
    words = ["train", "-q", "--epochs", "1", "-o", "new", "--set", "model.ridge_share=0.0"]
    code, _, told = finished(None, *words, limits={resource.RLIMIT_FSIZE: 100_000})
    assert code == 1
    assert told.count("\n") == 1
    assert "new/" in told
    assert "(a bug" not in told
    assert not list(Path("new").glob(".writing*"))


@uses_a_model
def test_a_checkpoint_of_another_version(
    arguments: list[str], trained: Path, refused: Refused
) -> None:
    content = torch.load(trained / "best.pt", weights_only=True)
    torch.save({**content, "format_version": 99}, "other.pt")
    line = refused(3, *with_run(arguments, "other.pt"))
    assert "other.pt: mgsym-model version 99, this mgsym reads version" in line


@uses_a_model
def test_a_checkpoint_that_would_run_code(
    arguments: list[str], trained: Path, refused: Refused
) -> None:
    torch.save({"format": Hostile()}, "other.pt")
    assert "other.pt: " in refused(3, *with_run(arguments, "other.pt"))
    assert not Path("executed").exists()


@uses_a_model
def test_a_run_that_is_not_there(arguments: list[str], trained: Path, refused: Refused) -> None:
    assert "absent" in refused(3, *with_run(arguments, "absent"))


def test_an_element_that_the_model_does_not_know(trained: Path, refused: Refused) -> None:
    Path("glass.xyz").write_text(xyz(["Cu 0 0 0", "Al 2.5 0 0"]))
    line = refused(3, "predict", "glass.xyz")
    assert "has Al, but the model knows only Cu, Zr" in line


@pytest.mark.parametrize("node", ["27", "-1"])
def test_a_node_that_is_not_there(node: str, trained: Path, refused: Refused) -> None:
    line = refused(2, "explain", "--node", node)
    assert node in line
    assert "26" in line or "27 atoms" in line


@pytest.mark.parametrize(
    ("column", "value"),
    [(5, "inf"), (5, "-inf"), (5, "1e300"), (6, "-1.0"), (6, "inf"), (6, "1e300")],
)
def test_labels_that_cannot_be_are_refused_with_the_atom(
    refused: Refused, column: int, value: str
) -> None:
    lines = Path(SAMPLE).read_text().splitlines()
    cells = lines[10].split()
    cells[column] = value
    lines[10] = " ".join(cells)
    Path("bad.xyz").write_text("\n".join(lines) + "\n")
    line = refused(3, "build-graph", "bad.xyz")
    name = "barrier" if column == 5 else "barrier_stderr"
    assert f"bad.xyz: column {name} of atom id {cells[4]} is " in line


@pytest.mark.parametrize("row", ["1,inf,0.1", "1,1e39,0.1", "1,1.5,-0.1", "1,1.5,inf"])
def test_a_table_with_labels_that_cannot_be_is_refused(refused: Refused, row: str) -> None:
    Path("labels.csv").write_text(f"id,barrier,barrier_stderr\n{row}\n")
    line = refused(3, "build-graph", SAMPLE, "--labels", "labels.csv")
    assert "labels.csv, line 2: barrier" in line
    assert " for atom id 1" in line
