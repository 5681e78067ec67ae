"""What commands show, on a terminal and without one."""

from __future__ import annotations

import io
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from mgsym.cli import console

Captured = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _normal_verbosity() -> None:
    console.reset()


def test_results_and_notes_go_their_ways(capsys: Captured) -> None:
    console.result("0.71")
    console.say("a note")
    console.warn("two\nlines")
    out, err = capsys.readouterr()
    assert out == "0.71\n"
    assert err == "a note\nmgsym: warning: two lines\n"


def test_quiet_keeps_results_and_warnings(capsys: Captured) -> None:
    console.set_verbosity(-1)
    console.say("a note")
    console.detail("a detail")
    console.wrote("a.npz")
    console.warn("careful")
    console.result("0.71")
    with console.progress("Building") as step:
        step(1, 2)
    out, err = capsys.readouterr()
    assert (out, err) == ("0.71\n", "mgsym: warning: careful\n")


def test_verbose_shows_details(capsys: Captured) -> None:
    console.detail("hidden")
    console.set_verbosity(1)
    console.detail("shown")
    assert capsys.readouterr().err == "shown\n"


def test_a_plain_table_aligns_numbers_to_the_right(capsys: Captured) -> None:
    rows = [["train_a", 500, 1.53271, "1.53 ± 0.30"], ["b", 12000, None, "0.2 ± 0.1"]]
    console.table("Graphs", ["name", "atoms", "mean", "label"], rows)
    assert capsys.readouterr().out.splitlines() == [
        "Graphs",
        "name     atoms   mean        label",
        "train_a    500  1.533  1.53 ± 0.30",
        "b        12000      –    0.2 ± 0.1",
    ]


def test_a_plain_table_neither_wraps_nor_interprets(capsys: Captured) -> None:
    long = "x" * 300
    console.table("", ["name", "n"], [[long, 1], ["[bold]", 2]])
    out = capsys.readouterr().out
    assert long in out
    assert "[bold]" in out
    assert "\x1b" not in out


def test_a_narrow_terminal_truncates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    console.table("Graphs", ["a long name", "barrier/eV"], [["validation", "1.46 ± 0.29"]])
    shown = terminal.getvalue()
    assert "\x1b[1m" in shown  # bold, as this is a terminal
    assert "validation   1.46 ± 0.29" in shown


def test_wrote_names_files_or_counts_them(capsys: Captured) -> None:
    console.wrote("a.npz")
    console.wrote([Path("graphs/a.npz"), Path("graphs/b.npz")])
    console.wrote([Path(f"graphs/train_{i}.npz") for i in range(9)])
    console.wrote([])
    assert capsys.readouterr().err.splitlines() == [
        "Wrote a.npz",
        "Wrote graphs/a.npz, graphs/b.npz",
        "Wrote 9 files to graphs",
    ]


def test_facts_leave_out_what_is_not_known(capsys: Captured) -> None:
    console.facts("a.xyz: extxyz", {"atoms": 500, "split": "", "glass": None, "mean": 1.53271})
    assert capsys.readouterr().out.splitlines() == [
        "a.xyz: extxyz",
        "  atoms  500",
        "  mean   1.533",
    ]


def test_long_facts_are_wrapped_below_themselves(capsys: Captured) -> None:
    console.facts("model", {"options": " ".join(["word"] * 30), "width": 32})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("  options  word word")
    assert lines[2].startswith("           word word")
    assert lines[3] == "  width    32"
    assert max(map(len, lines)) <= 100


def test_json_has_no_nan(capsys: Captured) -> None:
    value = {
        "pearson": float("nan"),
        "tensor": torch.tensor([1.0, float("inf")]),
        "scalar": np.float32(0.5),
        "path": Path("a/b"),
        "nested": [(1, None, True), {"µ": "Å"}],
    }
    console.emit_json(value)
    assert json.loads(capsys.readouterr().out) == {
        "pearson": None,
        "tensor": [1.0, None],
        "scalar": 0.5,
        "path": "a/b",
        "nested": [[1, None, True], {"µ": "Å"}],
    }


def test_a_log_gets_a_line_for_each_tenth(capsys: Captured) -> None:
    now = 0.0
    step = console.PlainProgress("Training", clock=lambda: now)
    for done in range(1, 1001):
        now += 0.005
        step(done, 1000, loss=0.25)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "Training: 100/1000 (10 %), loss 0.25"
    assert lines[4] == "Training: 500/1000 (50 %), loss 0.25, 2 s left"
    assert lines[9] == "Training: 1000/1000 (100 %), loss 0.25"


def test_slow_work_is_heard_of_but_does_not_fill_a_log(capsys: Captured) -> None:
    now = 0.0
    step = console.PlainProgress("Relaxing", clock=lambda: now)
    for done in range(12 * 3600):
        now += 1.0
        step(done)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Relaxing: 9"
    assert 50 < len(lines) < 200


@pytest.mark.parametrize(("seconds", "text"), [(12, "12 s"), (600, "10 min"), (9000, "2 h 30 min")])
def test_durations(seconds: float, text: str) -> None:
    assert console.duration(seconds) == text


def test_a_terminal_gets_a_bar_with_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with console.progress("Training") as step:
        step(30, 100, loss=0.125)
    shown = terminal.getvalue()
    assert "Training" in shown
    assert "30/100" in shown
    assert "loss 0.125" in shown
    assert "━" in shown


def test_without_a_terminal_there_is_no_bar(capsys: Captured) -> None:
    with console.progress("Training") as step:
        step(1, 2)
    err = capsys.readouterr().err
    assert err == "Training: 1/2 (50 %)\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_the_second_stops(number: signal.Signals, capsys: Captured) -> None:
    before = signal.getsignal(number)
    with console.interruptible() as should_stop:
        assert not should_stop()
        os.kill(os.getpid(), number)
        assert should_stop()
        assert "once more stops at once" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) is before
