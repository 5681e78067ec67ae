"""Names of devices."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from programs import finished

from mgsym.errors import UsageError
from mgsym.utils.devices import device_for_jobs, device_name, one_thread, resolve_device

GPUS = torch.cuda.device_count() if torch.cuda.is_available() else 0


def test_auto_takes_a_gpu_when_there_is_one() -> None:
    assert resolve_device("auto").type == ("cuda" if GPUS else "cpu")


def test_cpu_is_always_there() -> None:
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.cuda
@pytest.mark.skipif(GPUS == 0, reason="there is no GPU here")
@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:0"])
def test_a_gpu_is_numbered(name: str) -> None:
    assert torch.zeros(1, device=resolve_device(name)).device == resolve_device(name)


def test_a_missing_gpu_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(UsageError, match=r"cuda: PyTorch sees no GPU here.*--device cpu"):
        resolve_device("cuda")


def test_a_gpu_beyond_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="cuda:2 is not there: PyTorch sees 2"):
        resolve_device("cuda:2")


def test_several_processes_share_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    assert device_for_jobs("auto", 1) == torch.device("cuda", 0)
    assert device_for_jobs("auto", 2) == device_for_jobs("cpu", 2) == torch.device("cpu")
    with pytest.raises(UsageError, match=r"--jobs 2 with device cuda:0.*more --slots, or.*cpu"):
        device_for_jobs("cuda", 2)


@pytest.mark.parametrize("name", ["gpu", "cuda:one", "mps", "meta", ""])
def test_unknown_names(name: str) -> None:
    with pytest.raises(UsageError, match="auto, cpu, cuda or cuda:N"):
        resolve_device(name)


PEAKS = """
import torch
from mgsym.utils.devices import PeakMemory
before = PeakMemory(torch.device("cpu"))
if before.gigabytes() is None:
    raise SystemExit("none")
held = torch.ones(75_000_000)  # 0.3 GB
high = before.gigabytes()
del held
print(high - PeakMemory(torch.device("cpu")).gigabytes())
"""


def test_peak_memory_is_of_what_happened_since(tmp_path: Path) -> None:
    # a process of its own: what earlier tests freed would be taken again
    program = tmp_path / "program.py"
    program.write_text(PEAKS)
    _, out, err = finished(program)
    if err.strip() == "none":
        pytest.skip("this system does not tell the peak memory of a process")
    assert 0.25 < float(out) < 0.4


def test_a_device_says_what_it_is() -> None:
    assert device_name(torch.device("cpu")).startswith("cpu, ")
    assert device_name(torch.device("cpu"), 1) == "cpu, 1 thread"
    assert device_name(torch.device("cpu"), 4) == "cpu, 4 threads"


def test_one_thread_and_afterwards_as_many_as_before() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_thread():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
