"""A CUDA device for machines without one: tensors say cuda:0, rules are CUDA's, sums are the CPU's.

    with EmulatedCuda() as cuda:
        x = torch.ones(3, device="cuda")
        x + torch.ones(3)  # RuntimeError: Expected all tensors to be on the same device …
        cuda.launches, cuda.waits, cuda.bytes

It finds what breaks the first run on a GPU: tensors of two devices, a generator of the wrong one,
`.numpy()` on the device, kernels that do not exist for a type (a few that are known, in `rules`).
It counts what decides the speed there: kernel launches, waits of the host, bytes moved.

How it works: `CudaTensor` wraps a CPU tensor and tells torch that it is on cuda:0, so that
autograd, autocast and all checks of arguments take their paths for CUDA. `EmulatedCuda` is a
dispatch mode below them, which sees every operation, refuses what CUDA refuses, computes on the
CPU tensors inside and wraps what comes out.

It cannot tell anything about numerics of CUDA kernels (the order of atomic sums, TF32), memory,
limits of sizes, streams, Triton, or the speed of a real device.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import rules
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda", 0)
HERE = Path(__file__).resolve().parent
# built once for each version of torch; git does not see it
BUILT = HERE.parents[1] / "build" / "emulated_cuda"


class Unavailable(Exception):
    """Why there can be no emulated device here."""


@cache
def hooks() -> ctypes.CDLL:
    """The compiled part, built where it is missing (a few seconds).

    Raises:
        Unavailable: torch has CUDA itself, there is no compiler, or it cannot compile this.
    """
    if torch.backends.cuda.is_built():
        raise Unavailable("this torch is built with CUDA: make test-cuda runs on a real GPU")
    source, root = HERE / "hooks.cpp", Path(torch.__file__).parent
    library = BUILT / f"hooks-{torch.__version__}-{source.stat().st_mtime_ns}.so"
    if not library.exists():
        compiler = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")
        if compiler is None:
            raise Unavailable("no C++ compiler: install g++, or set CXX")
        BUILT.mkdir(parents=True, exist_ok=True)
        temporary = library.with_suffix(f".{os.getpid()}")
        options = ["-std=c++20", "-O0", "-shared", "-fPIC", f"-I{root / 'include'}"]
        linked = [f"-L{root / 'lib'}", "-lc10", "-ltorch_cpu", "-o", str(temporary)]
        command = [compiler, *options, str(source), *linked]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise Unavailable(f"{compiler} cannot compile hooks.cpp: {last}")
        temporary.replace(library)
    return ctypes.CDLL(str(library))


class CudaTensor(torch.Tensor):
    """A tensor that says it is on cuda:0, and the CPU tensor `inside`."""

    inside: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, inside: Tensor) -> CudaTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls, inside.shape, strides=inside.stride(), storage_offset=inside.storage_offset(),
            dtype=inside.dtype, layout=inside.layout, device=CUDA,
        )  # fmt: skip

    def __init__(self, inside: Tensor) -> None:
        self.inside = inside.detach()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor outlived its emulated device")

    def __repr__(self, **_: Any) -> str:
        return f"{repr(self.inside)[:-1]}, device='cuda:0')"

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inside.clone().requires_grad_(self.requires_grad).__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied = CudaTensor(self.inside.clone()).requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copied._is_param = True  # type: ignore[attr-defined]
            memo[id(self)] = copied
        return memo[id(self)]

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy: use Tensor.cpu() first")

    __array__ = numpy

    def tolist(self) -> Any:
        return self.cpu().tolist()


class EmulatedCuda(TorchDispatchMode):
    """While it is entered, torch sees one GPU; afterwards none, as before.

    Args:
        memory: bytes that are free there.
        source: a folder; waits are counted by line of the files in it, too.

    Attributes:
        launches: kernels, by operation.
        waits: of the host for the device, by operation.
        bytes: read and written by kernels, at the least, by operation.
        lines: waits and launches by the innermost line of `source`.
    """

    def __init__(self, memory: int = 70 * 2**30, source: Path | None = None) -> None:
        super().__init__()
        self.memory, self.source = memory, source
        self.launches, self.waits, self.bytes = (Counter[str]() for _ in range(3))
        self.lines: dict[str, Counter[str]] = {"waits": Counter(), "launches": Counter()}
        self.random = torch.Generator().manual_seed(0)
        self._undo = contextlib.ExitStack()

    def reset(self) -> None:
        """Count from zero."""
        for counter in (self.launches, self.waits, self.bytes, *self.lines.values()):
            counter.clear()

    # ---- torch sees a GPU -------------------------------------------------------------------

    def __enter__(self) -> EmulatedCuda:
        library = hooks()
        self._undo = contextlib.ExitStack()
        library.emulate_cuda(ctypes.c_bool(True))
        self._undo.callback(library.emulate_cuda, ctypes.c_bool(False))
        self._patch()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        try:
            return super().__exit__(*error)
        finally:
            self._undo.close()

    def _patch(self) -> None:
        for name, value in self._torch_cuda().items():
            self._undo.enter_context(mock.patch.object(torch.cuda, name, value))
        from torch.nn.utils import clip_grad
        from torch.optim import optimizer

        types = [*optimizer._foreach_supported_types, CudaTensor]
        for where, name, patch in (
            (torch, "load", _load(torch.load)),
            (torch, "compile", _no_compiler),
            (optimizer, "_foreach_supported_types", types),
            (clip_grad, "_has_foreach_support", lambda tensors, device: True),
        ):
            self._undo.enter_context(mock.patch.object(where, name, patch))
        for read, write in (
            (torch._C._only_lift_cpu_tensors, torch._C._set_only_lift_cpu_tensors),
            (
                lambda: not torch.autograd.is_multithreading_enabled(),
                lambda off: torch._C._set_multithreading_enabled(not off),
            ),
            (
                torch.__future__.get_overwrite_module_params_on_conversion,
                torch.__future__.set_overwrite_module_params_on_conversion,
            ),
        ):
            self._undo.callback(write, read())
            write(True)

    def _torch_cuda(self) -> dict[str, Any]:
        """What replaces functions of torch.cuda."""
        properties = mock.Mock(total_memory=self.memory, multi_processor_count=132)

        def seed(value: int) -> None:
            self.random.manual_seed(int(value))

        def wait(*_: Any) -> None:
            self._count("synchronize", 0, 1)

        return {
            "_lazy_init": lambda: None,
            "_is_in_bad_fork": lambda: False,
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "device": lambda *_: contextlib.nullcontext(),
            "synchronize": wait,
            "get_device_name": lambda *_: "an emulated GPU",
            "get_device_properties": lambda *_: properties,
            "get_device_capability": lambda *_: (9, 0),
            "is_bf16_supported": lambda *_, **__: True,
            "mem_get_info": lambda *_: (self.memory, self.memory),
            "memory_allocated": lambda *_: 0,
            "memory_reserved": lambda *_: 0,
            "max_memory_allocated": lambda *_: 10**9,
            "reset_peak_memory_stats": lambda *_: None,
            "empty_cache": lambda: None,
            "is_current_stream_capturing": lambda: False,
            "get_rng_state": lambda *_, **__: self.random.get_state(),
            "set_rng_state": lambda state, *_, **__: self.random.set_state(state),
            "manual_seed": seed,
            "manual_seed_all": seed,
            "initial_seed": self.random.initial_seed,
        }

    # ---- every operation passes here --------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = list(_tensors((*args, *kwargs.values())))
        involved = any(isinstance(x, CudaTensor) for x in tensors)
        name = func._schema.name.split("::")[-1]
        if name in ("pin_memory", "_pin_memory"):
            return _pinned(args[0])
        if not involved and kwargs.get("device") is None:
            return func(*args, **kwargs)
        if involved:
            rules.refuse(func, name, args, kwargs, tensors)
        there = _result_is_there(name, args, kwargs, involved)
        if not involved and not there:
            return func(*args, **kwargs)
        if there and "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        inside_args = tuple(map(_inside, args))
        inside_kwargs = {key: _inside(value) for key, value in kwargs.items()}
        if there and torch.Tag.nondeterministic_seeded in func.tags:
            out = self._draw(func, inside_args, inside_kwargs)
        else:
            out = func(*inside_args, **inside_kwargs)
        self._weigh(func, name, args, kwargs, tensors, there, out)
        return _wrapped(func, args, kwargs, out) if there else out

    def _draw(self, func: Any, args: Any, kwargs: Any) -> Any:
        """From the random state of the device, which is not that of the CPU."""
        if any(isinstance(x, torch.Generator) for x in (*args, *kwargs.values())):
            raise RuntimeError("Expected a 'cuda' device type for generator but found 'cpu'")
        host = torch.default_generator.get_state()
        torch.default_generator.set_state(self.random.get_state())
        try:
            return func(*args, **kwargs)
        finally:
            self.random.set_state(torch.default_generator.get_state())
            torch.default_generator.set_state(host)

    def _weigh(
        self,
        func: Any,
        name: str,
        args: Any,
        kwargs: Any,
        tensors: list[Tensor],
        there: bool,
        out: Any,
    ) -> None:
        if name in ("_to_copy", "copy_"):
            other = args[1] if name == "copy_" else args[0]
            crosses = isinstance(other, CudaTensor) != there
            way = "copy to device" if there else "copy to host"
            flies = kwargs.get("non_blocking") or (name == "copy_" and args[2:] == (True,))
            flies = flies and there and getattr(other, "is_pinned_here", False)
            self._count(way if crosses else name, 1, int(crosses and not flies))
        else:
            self._count(name, rules.kernels(func, name, args), rules.waits(name, args))
        if not rules.kernels(func, name, args):
            return
        results = list(_tensors(out if isinstance(out, tuple) else (out,)))
        read = 0 if name in ("fill_", "zero_") else sum(_bytes(x) for x in tensors)
        if name in ("index_select", "index", "gather"):  # reads what it takes, not all there is
            read = sum(map(_bytes, tensors[1:])) + sum(map(_bytes, results))
        self.bytes[name] += read + sum(map(_bytes, results))

    def _count(self, name: str, launches: int, waits: int) -> None:
        for counter, lines, number in (
            (self.launches, self.lines["launches"], launches),
            (self.waits, self.lines["waits"], waits),
        ):
            if number:
                counter[name] += number
                if self.source is not None:
                    lines[_line(self.source)] += number


def _pinned(tensor: Tensor) -> Tensor:
    """A copy that the device may fetch while the host goes on."""
    copy = tensor.clone()
    copy.is_pinned_here = True  # type: ignore[attr-defined]
    return copy


def _tensors(values: Iterable[Any]) -> Iterator[Tensor]:
    """Tensors among arguments or results, those in lists too."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _inside(value: Any) -> Any:
    """An argument as the CPU sees it."""
    if isinstance(value, CudaTensor):
        return value.inside
    return type(value)(map(_inside, value)) if type(value) in (list, tuple) else value


def _result_is_there(name: str, args: Any, kwargs: Any, involved: bool) -> bool:
    """Whether what an operation gives is on the emulated device."""
    wanted = kwargs.get("device")
    if wanted is not None:
        return torch.device(wanted).type == "cuda"
    if name in rules.INDEXING | rules.INDEX_PUT | {"copy_", "set_"}:
        return isinstance(args[0], CudaTensor)
    return involved


def _wrapped(func: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """The results on the device: arguments written to are given back themselves."""
    targets = iter(rules.written(func, args, kwargs))

    def wrap(part: Any, returned: Any) -> Any:
        if returned.alias_info is not None and returned.alias_info.is_write:
            return _written(func, args, kwargs, next(targets), part)
        if isinstance(part, Tensor):
            return CudaTensor(part)
        return [CudaTensor(x) for x in part] if isinstance(part, list | tuple) else part

    returns = func._schema.returns
    if len(returns) <= 1:
        return wrap(out, returns[0]) if returns else None
    return tuple(wrap(part, returned) for part, returned in zip(out, returns, strict=True))


def _written(func: Any, args: Any, kwargs: Any, target: Any, inside: Any) -> Any:
    """An argument that was changed in place; its shape too (`squeeze_`, `t_`)."""
    if isinstance(target, CudaTensor) and target.shape != inside.shape:
        with torch._C._DisableTorchDispatch():
            func(*args, **kwargs)
        assert target.shape == inside.shape, f"{func} changed a shape in an unforeseen way"
    return target


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()


def _line(source: Path) -> str:
    """The innermost line of a file in `source` that is being executed."""
    frame = sys._getframe(1)
    while frame is not None:
        file = Path(frame.f_code.co_filename)
        if source in file.parents:
            return f"{file.relative_to(source)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "torch's own (backward, optimiser)"


def _load(real: Any) -> Any:
    def load(*args: Any, **kwargs: Any) -> Any:
        if str(kwargs.get("map_location")) != "cpu":
            raise RuntimeError("torch.load without map_location='cpu': a file of a GPU machine")
        return real(*args, **kwargs)

    return load


def _no_compiler(*_: Any, **__: Any) -> Any:
    raise RuntimeError("torch.compile was called, and there is no Triton")
