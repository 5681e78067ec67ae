"""Which device to compute on, what it is, and how much memory a computation takes there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from mgsym.errors import UsageError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """The device that a name means.

    Args:
        name: ``auto`` (a GPU when there is one), ``cpu``, ``cuda`` or ``cuda:N``.

    Returns:
        With its number, so that it equals the device of the tensors put there.

    Raises:
        UsageError: the name is not of these, or the device is not there.
    """
    text = str(name)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if text == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if gpus else torch.device("cpu")
    try:
        device = torch.device(text)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UsageError(f"device {text!r} is not known: give auto, cpu, cuda or cuda:N")
    if device.type == "cpu":
        return device
    if gpus == 0:
        raise UsageError(f"device {text}: PyTorch sees no GPU here: give --device cpu or auto")
    index = device.index if device.index is not None else torch.cuda.current_device()
    if index >= gpus:
        raise UsageError(f"device {text} is not there: PyTorch sees {gpus}, cuda:0 first")
    return torch.device("cuda", index)


def device_for_jobs(name: str | torch.device, jobs: int) -> torch.device:
    """The device of work that `jobs` processes share: with several, `auto` means the CPU.

    Raises:
        UsageError: as `resolve_device`, or several processes are to share a GPU.
    """
    if jobs > 1 and str(name) == "auto":
        return torch.device("cpu")
    device = resolve_device(name)
    if jobs > 1 and device.type != "cpu":
        raise UsageError(
            f"--jobs {jobs} with device {device}: processes are for CPUs: leave out --jobs and "
            "take more --slots, or give --device cpu"
        )
    return device


def device_name(device: torch.device, threads: int | None = None) -> str:
    """``cpu, 2 threads``, or what the GPU is called; as many threads as torch has unless told."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = threads or torch.get_num_threads()
    return f"cpu, {threads} thread{'s' if threads > 1 else ''}"


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device, without waiting for the work that goes on there."""
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def brought(*tensors: Tensor) -> list[Tensor]:
    """Tensors of one device on the CPU: one transfer, for which the host waits once.

    Args:
        tensors: floating-point numbers, or integers below 2⁵³, or booleans.
    """
    if all(tensor.device.type == "cpu" for tensor in tensors):
        return list(tensors)
    numbers = torch.cat([tensor.double().flatten() for tensor in tensors]).cpu()
    parts = numbers.split([tensor.numel() for tensor in tensors])
    return [
        part.view(tensor.shape).to(tensor.dtype)
        for part, tensor in zip(parts, tensors, strict=True)
    ]


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, as suits small graphs.

    Threads that share so little wait for one another more than they work: beside other work on
    the machine, a step took up to forty times as long with two.
    """
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def free_memory(device: torch.device) -> int:
    """Bytes that a GPU has for new tensors: what nobody has, and what torch holds unused."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


class PeakMemory:
    """The most memory that was held since this object was made.

    On a GPU it is what torch allocated there. On a CPU it is the resident memory of the whole
    process, with the interpreter and everything loaded; only Linux tells it.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.measurable = True
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        try:
            # 5 sets the peak back to what is resident now (man 5 proc)
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        except OSError:
            self.measurable = False

    def gigabytes(self) -> float | None:
        """10⁹ bytes; None where the system does not tell."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        if not self.measurable:
            return None
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        match = re.search(r"VmHWM:\s+(\d+) kB", status)
        return int(match[1]) * 1024 / 1e9 if match else None
