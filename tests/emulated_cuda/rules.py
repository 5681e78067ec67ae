"""What CUDA refuses, and which operations make the host wait for the device.

Known by name, from torch's own dispatcher: an operation that is not listed is held to the general
rule alone, which is that all tensors are on one device.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

INDEXING = {"index", "_unsafe_index"}
INDEX_PUT = {"index_put", "index_put_", "_index_put_impl_", "_unsafe_index_put"}
# these move tensors between devices, or only look at them
MOVES = {"copy_", "copy", "_to_copy", "lift", "lift_fresh", "set_"}
# a CPU tensor without dimensions may stand beside CUDA tensors here, as in pointwise operations
TAKE_CPU_NUMBERS = {
    "where", "masked_fill", "masked_fill_", "fill_", "fill", "lerp", "lerp_", "clamp", "clamp_",
    "addcmul", "addcdiv", "addcmul_", "addcdiv_", "index_fill", "index_fill_",
}  # fmt: skip
PRODUCTS = {
    "mm", "bmm", "addmm", "addmm_", "addmv", "addmv_", "mv", "dot", "vdot", "baddbmm", "baddbmm_",
    "addbmm", "addbmm_", "addr",
}  # fmt: skip
NOT_IN_HALF = ("linalg_", "_linalg", "_cdist", "cholesky", "geqrf", "histc", "segment_reduce")
WAITS = {
    "_local_scalar_dense", "nonzero", "unique_dim", "_unique2", "unique_consecutive", "equal",
    "unique_dim_consecutive", "masked_select", "bincount", "histc", "is_nonzero",
    "_linalg_check_errors",
}  # fmt: skip
# operations of several kernels, by what their sources launch for sizes like ours
KERNELS = {
    "sort": 3, "argsort": 3, "cumsum": 2, "nonzero": 3, "bincount": 4, "_unique2": 6,
    "unique_consecutive": 6, "linalg_qr": 6, "_linalg_eigh": 20, "_linalg_svd": 20,
    "linalg_inv_ex": 8, "_linalg_solve_ex": 8, "_linalg_det": 6, "native_batch_norm": 3,
    "native_batch_norm_backward": 2, "_embedding_bag": 2, "_embedding_bag_forward_only": 2,
    "repeat_interleave": 4, "topk": 3, "index_put_": 2, "_index_put_impl_": 2, "index_put": 3,
}  # fmt: skip
# they compute nothing
FREE = {
    "detach", "alias", "empty", "empty_strided", "empty_like", "new_empty", "new_empty_strided",
    "lift_fresh", "lift", "_unsafe_view", "is_same_size", "_reshape_alias", "view", "set_",
    "is_pinned", "t", "squeeze_", "unsqueeze_", "t_", "transpose_",
}  # fmt: skip
HALF = (torch.float16, torch.bfloat16)


def refuse(func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
    """Raise what CUDA would raise for these arguments.

    Args:
        func: an operation of torch, `name` without namespace and overload.
        args, kwargs: its arguments.
        tensors: all tensors among them, some of them on the emulated device.
    """
    if name in INDEXING | INDEX_PUT:
        _refuse_indices(name, args)
    elif name not in MOVES:
        _refuse_two_devices(func, name, args, kwargs, tensors)
    there = [x for x in tensors if x.is_cuda]
    if name in PRODUCTS and not all(x.is_floating_point() or x.is_complex() for x in there):
        kind = str(there[0].dtype).removeprefix("torch.")
        raise RuntimeError(f"\"{name}_cuda\" not implemented for '{kind}'")
    if name.startswith(NOT_IN_HALF) and any(x.dtype in HALF for x in there):
        raise RuntimeError(f'"{name}_cuda" not implemented for half precision')
    if name in ("searchsorted", "bucketize") and len({x.dtype for x in there[:2]}) > 1:
        raise RuntimeError(f"torch.{name}(): boundary and input dtypes differ")


def _refuse_indices(name: str, args: Any) -> None:
    """A CUDA tensor takes indices from everywhere, a CPU tensor from the CPU."""
    target, indices = args[0], [i for i in args[1] if i is not None]
    if not target.is_cuda and any(i.is_cuda for i in indices):
        raise RuntimeError(
            "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
        )
    if name in INDEX_PUT and target.is_cuda != args[2].is_cuda and args[2].dim() > 0:
        raise RuntimeError(
            "Expected all tensors to be on the same device: "
            f"{name} of a tensor on {target.device} with values on {args[2].device}"
        )


def _refuse_two_devices(
    func: Any, name: str, args: Any, kwargs: Any, tensors: list[Tensor]
) -> None:
    mixes = torch.Tag.pointwise in func.tags or name in TAKE_CPU_NUMBERS
    mixes = mixes or name.startswith("_foreach")
    bound = [x for x in tensors if x.is_cuda or x.dim() > 0 or not mixes]
    bound += [x for x in written(func, args, kwargs) if isinstance(x, Tensor)]
    if len({x.device for x in bound}) > 1:
        told = ", ".join(f"{tuple(x.shape)} on {x.device}" for x in tensors)
        raise RuntimeError(
            f"Expected all tensors to be on the same device, found at least two in {func}: {told}"
        )


def written(func: Any, args: Any, kwargs: Any) -> list[Any]:
    """The arguments that an operation writes to: its own of in-place ones, and out=."""
    return [
        args[place] if place < len(args) else kwargs.get(argument.name)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]


def waits(name: str, args: Any) -> int:
    """How often the host waits for the device in an operation there."""
    if name in INDEXING | INDEX_PUT:
        return sum(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
    told_size = name == "repeat_interleave" and len(args) > 1 and isinstance(args[1], int)
    return int(name in WAITS or (name == "repeat_interleave" and not told_size))


def kernels(func: Any, name: str, args: Any) -> int:
    """How many kernels an operation launches; a guess where it is more than one."""
    if func.is_view or name in FREE:
        return 0
    if name.startswith("_foreach"):
        return -(-len(args[0]) // 60)  # tensors of one launch
    masks = waits(name, args) * KERNELS["nonzero"] if name in INDEXING | INDEX_PUT else 0
    return KERNELS.get(name, 1) + masks
