"""The passes over edges of a layer, compiled (edge_passes.cpp) where a compiler is there.

What PyTorch computes in `mgsym.nn.egat_kernel`, `egat` and `layers` comes out here to
rounding, in less time: gathers, products, activations and sums of a block of edges are made
while it stays in the first cache. For float32 on a CPU, in training and in predictions of very
many edges; the rest is PyTorch's.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mgsym.nn.egat_inputs import Given, Learnt
from mgsym.utils.compilation import address, compiled_library, structure_fields

_SOURCE = Path(__file__).with_name("edge_passes.cpp")
_SHARE = 4096  # edges that are worth a thread
_MOST_THREADS = 8  # each has sums of its own
_MANY = 300_000  # edges whose prediction gains more than compiling takes


def compiled_passes(edges: Tensor, width: int, training: bool) -> ctypes.CDLL | None:
    """Load the compiled passes if they can take these edges: None means PyTorch.

    Args:
        edges: [e, …], on the device and in the precision of the layer.
        width: of a head, and of the edges between layers.
        training: whether the layer is; a prediction has no gradients here.
    """
    if training != torch.is_grad_enabled() or not (training or len(edges) >= _MANY):
        return None
    if edges.device.type != "cpu" or edges.dtype != torch.float32 or width % 16 or width > 128:
        return None
    if torch.is_autocast_enabled("cpu"):
        return None
    return compiled_library(_SOURCE, WIDTH=width)


def _threads(edges: int) -> int:
    return max(min(torch.get_num_threads(), _MOST_THREADS, edges // _SHARE), 1)


class _Layer(ctypes.Structure):
    _fields_ = structure_fields(
        "count heads nodes threads",
        "source target p q edges inward kept stored",
        ("scale", ctypes.c_float),
    )


class CompiledEdges:
    """The passes of `egat_kernel.update_edges` (EagerEdges says what each gives)."""

    def __init__(self, learnt: Learnt, given: Given, stored: Tensor | None) -> None:
        assert given.library is not None
        self.library, self.stored = given.library, stored
        self.count, self.width = learnt.edges.shape
        self.heads, self.nodes = len(learnt.a), len(learnt.p)
        self.threads = _threads(self.count)
        self.logits: Tensor | None = None
        w_e = learnt.w_e.view(self.heads, self.width, self.width)
        self.edges, self.a, self.w_e = learnt.edges.contiguous(), learnt.a.contiguous(), w_e
        # kept here, since the structure holds addresses only
        self._held = (
            given.source.contiguous(), given.target.contiguous(), learnt.p.contiguous(),
            learnt.q.contiguous(), self.edges, w_e.transpose(1, 2).contiguous(),
            None if given.kept is None else given.kept.contiguous(), stored,
        )  # fmt: skip
        self._layer = ctypes.byref(
            _Layer(
                self.count,
                self.heads,
                self.nodes,
                self.threads,
                *map(address, self._held),
                given.scale,
            )
        )

    def statistics(self, shift: Tensor) -> Tensor:
        channels = self.heads * self.width
        self.logits = self.edges.new_empty(self.count, self.heads)
        sums = torch.zeros(self.threads, 2, channels, dtype=torch.float64)
        self.library.egat_activate(
            self._layer,
            address(self.a),
            address(shift.contiguous()),
            address(self.logits),
            address(sums),
        )
        return sums.sum(0)

    def outputs(self, projection: Tensor | None, constant: Tensor) -> tuple[Tensor, Tensor | None]:
        constant, matrix, new = constant.contiguous(), None, None
        if projection is not None:
            new, matrix = torch.empty_like(self.edges), projection.T.contiguous()
        if self.logits is None:  # nobody asked for statistics
            self.logits = self.edges.new_empty(self.count, self.heads)
            self.library.egat_outputs(
                self._layer, *map(address, (self.a, matrix, constant, self.logits, new))
            )
        elif new is not None:
            self.library.egat_update(self._layer, *map(address, (matrix, constant, new)))
        return self.logits, new

    def moments(self, d_logits: Tensor | None, d_new: Tensor | None) -> tuple[Tensor, ...]:
        moment = self.edges.new_zeros(self.threads, self.heads, self.width, self.width)
        summed = self.edges.new_zeros(self.threads, self.width)
        d_a = self.edges.new_zeros(self.threads, self.heads, self.width)
        inputs = (_contiguous(d_logits), _contiguous(d_new))
        self.library.egat_moments(
            self._layer, *map(address, inputs), address(moment), address(summed), address(d_a)
        )  # fmt: skip
        return d_a.sum(0), moment.sum(0).transpose(0, 1).flatten(1), summed.sum(0)

    def gradients(
        self,
        d_logits: Tensor | None,
        d_new: Tensor | None,
        projection: Tensor | None,
        slope: Tensor | None,
        constant: Tensor | None,
        weights: bool,
    ) -> dict[str, Tensor]:
        channels = self.heads * self.width
        nothing = self.edges.new_zeros(channels)
        d_p, d_q = (self.edges.new_zeros(self.threads, self.nodes, channels) for _ in range(2))
        d_edges = torch.empty_like(self.edges)
        d_w_e = self.edges.new_zeros(self.threads, channels, self.width)
        if projection is not None:
            by_head = projection.view(self.width, self.heads, self.width)
            projection = by_head.transpose(0, 1).contiguous()
        inputs = (
            _contiguous(d_logits), _contiguous(d_new), projection, self.a,
            nothing if slope is None else slope, nothing if constant is None else constant,
            self.w_e.contiguous(),
        )  # fmt: skip
        outputs = (d_p, d_q, d_edges, d_w_e)
        self.library.egat_backward(self._layer, *map(address, inputs), *map(address, outputs))
        return {"p": _total(d_p), "q": _total(d_q), "edges": d_edges, "w_e": d_w_e.sum(0)}


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _total(of_threads: Tensor) -> Tensor:
    return of_threads[0] if len(of_threads) == 1 else of_threads.sum(0)


class Softmax(torch.autograd.Function):
    """Of logits [e, heads] over the edges that arrive at each node."""

    @staticmethod
    def forward(ctx: Any, library: ctypes.CDLL, logits: Tensor, offsets: Tensor) -> Tensor:
        logits = logits.contiguous()
        alpha = torch.empty_like(logits)
        ctx.library, ctx.sizes = library, _sizes(offsets, logits)
        library.softmax(*ctx.sizes, address(offsets), address(logits), address(alpha))
        ctx.save_for_backward(alpha, offsets)
        return alpha

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, None]:
        alpha, offsets = ctx.saved_tensors
        d_logits, grad = torch.empty_like(alpha), grad.contiguous()
        ctx.library.softmax_backward(
            *ctx.sizes, address(offsets), address(alpha), address(grad), address(d_logits)
        )  # fmt: skip
        return None, d_logits, None


class Gather(torch.autograd.Function):
    """out[d, k] = Σ over edges s→d of α[e, k] h[s]."""

    @staticmethod
    def forward(
        ctx: Any,
        library: ctypes.CDLL,
        alpha: Tensor,
        nodes: Tensor,
        source: Tensor,
        offsets: Tensor,
    ) -> Tensor:
        alpha, nodes, source = alpha.contiguous(), nodes.contiguous(), source.contiguous()
        gathered = nodes.new_empty(len(offsets) - 1, alpha.shape[1], nodes.shape[1])
        ctx.library, ctx.sizes = library, _sizes(offsets, alpha)
        library.gather(*ctx.sizes, *map(address, (offsets, source, alpha, nodes, gathered)))
        ctx.save_for_backward(alpha, nodes, source, offsets)
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, Tensor, Tensor, None, None]:
        alpha, nodes, source, offsets = ctx.saved_tensors
        d_alpha, grad = torch.empty_like(alpha), grad.contiguous()
        d_nodes = nodes.new_zeros(int(ctx.sizes[2].value), *nodes.shape)
        ctx.library.gather_backward(
            *ctx.sizes, *map(address, (offsets, source, alpha, nodes, grad, d_alpha, d_nodes))
        )
        return None, d_alpha, _total(d_nodes), None, None


def _sizes(offsets: Tensor, of_edges: Tensor) -> tuple[ctypes.c_int64, ...]:
    """Nodes, heads and threads."""
    count, heads = of_edges.shape
    return tuple(ctypes.c_int64(i) for i in (len(offsets) - 1, heads, _threads(count)))


class _Encoder(ctypes.Structure):
    _fields_ = structure_fields("count views inputs threads", "x first")


def _encoder(x: Tensor, first: Tensor) -> tuple[Any, int]:
    threads = _threads(len(x))
    return ctypes.byref(
        _Encoder(len(x), *first.shape[:2], threads, address(x), address(first))
    ), threads


class HiddenMoments(torch.autograd.Function):
    """Of the edge encoder: as `mgsym.nn.layers._HiddenMoments`."""

    @staticmethod
    def forward(ctx: Any, library: ctypes.CDLL, x: Tensor, first: Tensor, shares: Tensor) -> Tensor:
        x, first = x.contiguous(), first.contiguous()
        ctx.library = library
        ctx.save_for_backward(x, first, shares)
        views, _, width = first.shape
        encoder, threads = _encoder(x, first)
        sums = x.new_zeros(threads, views, 1 + width, width)
        library.encoder_moments(encoder, address(sums))
        return torch.einsum("t,tij->ij", shares, sums.sum(0))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor, None]:
        x, first, shares = ctx.saved_tensors
        symmetric, d_sum = grad[1:] + grad[1:].T, grad[0].contiguous()
        encoder, threads = _encoder(x, first)
        d_first = x.new_zeros(threads, *first.shape)
        ctx.library.encoder_moments_backward(
            encoder, address(symmetric.contiguous()), address(d_sum), address(d_first)
        )
        return None, None, d_first.sum(0) * shares[:, None, None], None


class Encode(torch.autograd.Function):
    """Of the edge encoder: as `mgsym.nn.layers._Encode`, averaged over views."""

    @staticmethod
    def forward(
        ctx: Any,
        library: ctypes.CDLL,
        x: Tensor,
        first: Tensor,
        second: Tensor,
        constant: Tensor,
        shares: Tensor,
    ) -> Tensor:
        x, first, constant = x.contiguous(), first.contiguous(), constant.contiguous()
        ctx.library = library
        ctx.save_for_backward(x, first, second, constant, shares)
        matrix, shares, out = (
            second.T.contiguous(),
            shares.contiguous(),
            x.new_empty(len(x), len(second)),
        )
        encoder, _ = _encoder(x, first)
        library.encoder_encode(encoder, *map(address, (matrix, constant, shares, out)))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, first, second, constant, shares = ctx.saved_tensors
        encoder, threads = _encoder(x, first)
        d_first = x.new_zeros(threads, *first.shape)
        d_second = x.new_zeros(threads, len(first), *second.shape)
        d_constant = x.new_zeros(threads, len(first), len(second))
        inputs = (second.T.contiguous(), second.contiguous(), constant, grad.contiguous())
        outputs = (d_first, d_second, d_constant)
        ctx.library.encoder_encode_backward(encoder, *map(address, inputs), *map(address, outputs))
        return (
            None,
            None,
            d_first.sum(0) * shares[:, None, None],
            torch.einsum("t,tij->ij", shares, d_second.sum(0)),
            shares @ d_constant.sum(0),
            None,
        )
