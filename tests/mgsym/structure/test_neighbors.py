"""The neighbour search: exact counts, invariances, lattices, parity with other programs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mgsym.errors import InputError, UsageError
from mgsym.structure import neighbors
from mgsym.structure.neighbors import Pairs, neighbor_pairs

METHODS = ("brute", "cells")
ALL_PERIODIC = list(itertools.product((False, True), repeat=3))
EVERYWHERE = (True, True, True)

CELLS = {
    "cubic": np.diag([9.0, 9.0, 9.0]),
    "small": np.diag([2.1, 2.7, 3.2]),
    "flat": np.diag([11.0, 2.0, 8.0]),
    "rod": np.diag([1.9, 2.2, 25.0]),
    "triclinic": np.array([[8.0, 0.0, 0.0], [2.5, 7.0, 0.0], [-1.5, 3.0, 6.0]]),
    "skewed": np.array([[5.0, 0.0, 0.0], [14.0, 4.0, 0.0], [-9.0, 11.0, 6.0]]),
    "rotated": np.array([[1.0, 6.0, 2.0], [-5.0, 2.0, 1.0], [0.5, -1.0, 7.0]]),
}


def random_positions(cell: np.ndarray, atoms: int, seed: int, unwrapped: bool) -> np.ndarray:
    """Atoms in the cell, or up to three cells away from it."""
    generator = np.random.default_rng(seed)
    fraction = generator.random((atoms, 3))
    if unwrapped:
        fraction += generator.integers(-3, 4, (atoms, 3))
    return fraction @ cell


def search(
    positions: np.ndarray,
    cell: np.ndarray,
    periodic: tuple[bool, ...] = EVERYWHERE,
    cutoff: float = 3.0,
    method: str = "auto",
) -> Pairs:
    flags = (periodic[0], periodic[1], periodic[2])
    return neighbor_pairs(
        torch.as_tensor(positions), torch.as_tensor(cell), flags, cutoff, method=method
    )


def rows(pairs: Pairs) -> list[tuple[int, ...]]:
    """(target, source, shift) of each edge, in the order given."""
    source, target = pairs.edge_index.tolist()
    return [
        (t, s, *shift) for t, s, shift in zip(target, source, pairs.shift.tolist(), strict=True)
    ]


def explicit_loops(
    positions: np.ndarray, cell: np.ndarray, periodic: tuple[bool, ...], cutoff: float
) -> list[tuple[int, ...]]:
    """Every image in a box of shifts that no pair can leave; nothing shared with the library."""
    inverse = np.linalg.inv(cell)
    fraction = positions @ inverse
    span = fraction.max(axis=0) - fraction.min(axis=0)
    # |Δfraction| ≤ cutoff / height along a periodic vector
    heights = 1 / np.linalg.norm(inverse, axis=0)
    most = [int(span[k] + cutoff / heights[k]) + 2 if periodic[k] else 0 for k in range(3)]
    found = []
    for shift in itertools.product(*(range(-m, m + 1) for m in most)):
        moved = positions + np.array(shift) @ cell
        distance = np.linalg.norm(moved[None] - positions[:, None], axis=2)
        for target, source in np.argwhere(distance < cutoff).tolist():
            if source != target or any(shift):
                found.append((target, source, *shift))
    return sorted(found)


@pytest.mark.parametrize("unwrapped", [False, True], ids=["wrapped", "unwrapped"])
@pytest.mark.parametrize("name", CELLS)
def test_same_edges_as_explicit_loops(name: str, unwrapped: bool) -> None:
    cell = CELLS[name]
    for number, periodic in enumerate(ALL_PERIODIC):
        for cutoff in (1.3, 3.7):
            positions = random_positions(cell, 9, seed=number, unwrapped=unwrapped)
            expected = explicit_loops(positions, cell, periodic, cutoff)
            for method in METHODS:
                pairs = search(positions, cell, periodic, cutoff, method)
                assert rows(pairs) == expected, (periodic, cutoff, method)


@pytest.mark.parametrize("periodic", ALL_PERIODIC)
@pytest.mark.parametrize("name", CELLS)
def test_brute_and_cells_agree_to_the_bit(name: str, periodic: tuple[bool, ...]) -> None:
    positions = random_positions(CELLS[name], 150, seed=7, unwrapped=True)
    first = search(positions, CELLS[name], periodic, 2.9, "brute")
    second = search(positions, CELLS[name], periodic, 2.9, "cells")
    assert len(first.shift) > 0
    for ours, theirs in zip(first, second, strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("method", METHODS)
def test_chunks_do_not_show(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    positions = random_positions(CELLS["triclinic"], 200, seed=3, unwrapped=True)
    whole = search(positions, CELLS["triclinic"], cutoff=3.3, method=method)
    monkeypatch.setattr(neighbors, "_chunk", lambda like: 50)
    parts = search(positions, CELLS["triclinic"], cutoff=3.3, method=method)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CELLS)
def test_fields_mean_what_they_say(name: str, method: str) -> None:
    cell = CELLS[name]
    positions = random_positions(cell, 40, seed=1, unwrapped=True)
    pairs = search(positions, cell, cutoff=3.1, method=method)
    source, target = pairs.edge_index.numpy()
    expected = positions[source] + pairs.shift.numpy() @ cell - positions[target]
    assert pairs.edge_index.dtype == torch.int64
    assert pairs.shift.dtype == torch.int16
    assert pairs.vector.dtype == torch.float32
    np.testing.assert_allclose(pairs.vector.numpy(), expected, atol=1e-6)
    assert (np.linalg.norm(expected, axis=1) < 3.1).all()
    assert rows(pairs) == sorted(set(rows(pairs)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("periodic", ALL_PERIODIC)
def test_every_edge_has_its_exact_reverse(periodic: tuple[bool, ...], method: str) -> None:
    positions = random_positions(CELLS["skewed"], 40, seed=5, unwrapped=True)
    pairs = search(positions, CELLS["skewed"], periodic, 4.0, method)
    source, target = pairs.edge_index.tolist()
    shifts, vectors = pairs.shift.tolist(), pairs.vector.tolist()
    edges = {
        (s, t, *shift): vector
        for s, t, shift, vector in zip(source, target, shifts, vectors, strict=True)
    }
    assert len(edges) > 0
    for (s, t, *shift), vector in edges.items():
        assert edges[(t, s, *(-k for k in shift))] == [-v for v in vector]


def rotation(seed: int) -> np.ndarray:
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    return np.asarray(q * np.sign(np.linalg.det(q)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CELLS)
def test_rotating_and_moving_everything_keeps_the_edges(name: str, method: str) -> None:
    cell = CELLS[name]
    positions = random_positions(cell, 60, seed=2, unwrapped=True)
    before = search(positions, cell, (True, False, True), 3.4, method)
    turn = rotation(4)
    turned = search(positions @ turn, cell @ turn, (True, False, True), 3.4, method)
    moved = search(positions + np.array([31.0, -7.5, 2.25]), cell, (True, False, True), 3.4, method)
    assert rows(before) == rows(turned) == rows(moved)
    torch.testing.assert_close(
        turned.vector, (before.vector.double() @ torch.as_tensor(turn)).float()
    )
    torch.testing.assert_close(moved.vector, before.vector)


@pytest.mark.parametrize("method", METHODS)
def test_another_basis_of_the_same_lattice_gives_the_same_vectors(method: str) -> None:
    cell = CELLS["triclinic"]
    basis = np.array([[1, 0, 0], [3, 1, 0], [-4, 2, 1]])
    positions = random_positions(cell, 50, seed=6, unwrapped=False)
    first = search(positions, cell, cutoff=4.1, method=method)
    second = search(positions, basis @ cell, cutoff=4.1, method=method)

    def order(pairs: Pairs) -> list[tuple[float, ...]]:
        edges = torch.cat([pairs.edge_index.T, pairs.vector], dim=1)
        return sorted(map(tuple, edges.tolist()))

    np.testing.assert_allclose(order(first), order(second), atol=2e-6)
    # shifts are counted along the new vectors
    total = second.shift.numpy() @ basis
    assert sorted(map(tuple, total)) == sorted(map(tuple, first.shift.numpy()))


@pytest.mark.parametrize("method", METHODS)
def test_relabelling_atoms_relabels_edges(method: str) -> None:
    positions = random_positions(CELLS["flat"], 70, seed=8, unwrapped=True)
    order = np.random.default_rng(0).permutation(70)
    before = search(positions, CELLS["flat"], cutoff=2.6, method=method)
    after = search(positions[order], CELLS["flat"], cutoff=2.6, method=method)
    renamed = sorted((order[t], order[s], *shift) for t, s, *shift in rows(after))
    assert renamed == rows(before)


FCC_SHELLS = [12, 6, 24, 12, 24, 8, 48]
SC_SHELLS = {1: 6, 2: 12, 3: 8, 4: 6, 5: 24, 6: 24, 8: 12, 9: 30, 10: 24, 11: 24, 12: 8, 13: 24}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("repeats", [1, 4])
def test_fcc_shells(repeats: int, method: str) -> None:
    base = np.array([[0, 0, 0], [0, 2, 2], [2, 0, 2], [2, 2, 0]], dtype=float)
    corners = np.array(list(itertools.product(range(repeats), repeat=3))) * 4.0
    positions = (corners[:, None] + base).reshape(-1, 3)
    cell = np.eye(3) * 4.0 * repeats
    for shell in range(1, len(FCC_SHELLS) + 1):
        cutoff = np.sqrt(8 * (shell + 0.5))
        pairs = search(positions, cell, cutoff=cutoff, method=method)
        counts = torch.bincount(pairs.edge_index[1])
        assert (counts == sum(FCC_SHELLS[:shell])).all()


@pytest.mark.parametrize("method", METHODS)
def test_one_atom_and_its_own_images(method: str) -> None:
    cell = np.eye(3) * 2.0
    for square in SC_SHELLS:
        pairs = search(
            np.array([[17.3, -4.1, 0.2]]), cell, EVERYWHERE, 2 * square**0.5 + 1e-3, method
        )
        expected = sum(count for s, count in SC_SHELLS.items() if s <= square)
        assert len(pairs.shift) == expected
        assert (pairs.edge_index == 0).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1.0, 0.75, 4096.0])
def test_a_pair_exactly_at_the_cutoff_is_left_out(scale: float, method: str) -> None:
    cell = np.eye(3) * 4 * scale
    positions = np.array(list(itertools.product(range(4), repeat=3))) * scale
    at = search(positions, cell, cutoff=scale, method=method)
    beyond = search(positions, cell, cutoff=float(np.nextafter(scale, np.inf)), method=method)
    assert len(at.shift) == 0
    assert len(beyond.shift) == 6 * 64
    # 3, 4, 5: off the axes
    two = np.array([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]) * scale
    assert len(search(two, cell, (False,) * 3, 5 * scale, method).shift) == 0


@pytest.mark.parametrize("method", METHODS)
def test_atoms_on_one_spot_are_a_pair(method: str) -> None:
    positions = np.array([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [9.0, 1.0, 1.0]])
    pairs = search(positions, np.eye(3) * 8, cutoff=1.0, method=method)
    assert rows(pairs) == [
        (0, 1, 0, 0, 0), (0, 2, -1, 0, 0), (1, 0, 0, 0, 0),
        (1, 2, -1, 0, 0), (2, 0, 1, 0, 0), (2, 1, 1, 0, 0),
    ]  # fmt: skip
    assert (pairs.vector == 0).all()


@pytest.mark.parametrize("method", METHODS)
def test_atoms_far_apart_cost_nothing(method: str) -> None:
    positions = np.array([[0.0, 0, 0], [1e7, 0, 0], [1e7, 1, 0], [0, -1e7, 1e7], [0, 0, 1.5]])
    pairs = search(positions, np.eye(3), (False,) * 3, 2.0, method)
    assert rows(pairs) == [(0, 4, 0, 0, 0), (1, 2, 0, 0, 0), (2, 1, 0, 0, 0), (4, 0, 0, 0, 0)]


@pytest.mark.parametrize("method", METHODS)
def test_uneven_density(method: str) -> None:
    generator = np.random.default_rng(11)
    cloud = generator.normal(size=(150, 3))
    gas = generator.random((150, 3)) * 60
    positions = np.concatenate([cloud + 30, gas])
    pairs = search(positions, np.eye(3) * 60, EVERYWHERE, 2.5, method)
    assert rows(pairs) == explicit_loops(positions, np.eye(3) * 60, (False,) * 3, 2.5)


@pytest.mark.parametrize("method", METHODS)
def test_no_neighbours_and_no_atoms(method: str) -> None:
    for positions in (np.zeros((0, 3)), np.array([[1.0, 2.0, 3.0]])):
        pairs = search(positions, np.eye(3) * 9, cutoff=2.0, method=method)
        assert [t.shape for t in pairs] == [(2, 0), (0, 3), (0, 3)]


def test_vectors_that_do_not_repeat_are_not_looked_at() -> None:
    positions = random_positions(np.eye(3) * 5, 30, seed=0, unwrapped=False)
    cell = np.diag([5.0, 5.0, 0.0])
    pairs = search(positions, cell, (True, True, False), 2.0)
    assert rows(pairs) == rows(search(positions, np.diag([5.0, 5.0, 99.0]), EVERYWHERE, 2.0))


def test_a_thin_skewed_cell_stays_cheap() -> None:
    # its vectors reach 50 Å while the lattice is simple cubic
    cell = np.array([[1, 0, 0], [25, 1, 0], [-30, 40, 1]]) * 1.0
    pairs = search(np.zeros((1, 3)), cell, EVERYWHERE, 3.1)
    assert len(pairs.shift) == sum(count for s, count in SC_SHELLS.items() if s <= 9)
    np.testing.assert_allclose(pairs.shift.numpy() @ cell, pairs.vector.numpy(), atol=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cutoff": 0.0}, r"cutoff is 0 Å, expected a positive"),
        ({"cutoff": -5.0}, r"cutoff is -5 Å, expected a positive"),
        ({"cutoff": float("nan")}, r"cutoff is nan Å"),
        ({"cutoff": float("inf")}, r"cutoff is inf Å"),
        ({"cutoff": 5000.0}, r"periodic images of 2 atoms.*smaller cutoff"),
        ({"cell": np.diag([1e-4, 1e4, 1e4])}, r"periodic images.*check the cell"),
        ({"cell": np.diag([3.0, 3.0, 0.0])}, r"no volume"),
        ({"cell": np.array([[1.0, 0, 0], [0, 1, 0], [1, 1, 0]])}, r"no volume"),
        ({"cell": np.diag([3.0, 3.0, np.nan])}, r"NaN or infinite"),
        ({"positions": np.array([[0.0, np.inf, 0.0]])}, r"NaN or infinite"),
        ({"positions": np.array([[0.0, 0, 0], [2e5, 0, 0]])}, r"wrap the positions"),
        ({"positions": np.zeros((4, 2))}, r"positions are \[4, 2\].*expected \[n, 3\]"),
    ],
)
def test_what_is_refused(changes: dict[str, object], message: str) -> None:
    request: dict[str, object] = {
        "positions": np.array([[0.0, 0, 0], [1, 0, 0]]),
        "cell": np.eye(3) * 4,
    }
    with pytest.raises(InputError, match=message):
        search(**(request | changes))  # type: ignore[arg-type]


def test_unknown_method_is_refused() -> None:
    with pytest.raises(UsageError, match="brute, cells"):
        search(np.zeros((1, 3)), np.eye(3), method="fast")


# --- other programs --------------------------------------------------------------------------

Others = Callable[[np.ndarray, np.ndarray, tuple[bool, ...], float], tuple[np.ndarray, ...]]


def ase_list(positions, cell, periodic, cutoff):  # type: ignore[no-untyped-def]
    library = pytest.importorskip("ase.neighborlist")
    return library.primitive_neighbor_list("ijSD", periodic, cell, positions, cutoff)


def matscipy_list(positions, cell, periodic, cutoff):  # type: ignore[no-untyped-def]
    library = pytest.importorskip("matscipy.neighbours")
    return library.neighbour_list(
        "ijSD", cutoff=cutoff, positions=positions, cell=cell, pbc=np.array(periodic)
    )


def vesin_list(positions, cell, periodic, cutoff):  # type: ignore[no-untyped-def]
    library = pytest.importorskip("vesin")
    calculator = library.NeighborList(cutoff=cutoff, full_list=True)
    return calculator.compute(
        points=positions, box=cell, periodic=list(periodic), quantities="ijSD"
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("periodic", [EVERYWHERE, (True, True, False), (False,) * 3])
@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("other", [ase_list, matscipy_list, vesin_list])
def test_parity(other: Others, name: str, periodic: tuple[bool, ...], method: str) -> None:
    cell = CELLS[name]
    positions = random_positions(cell, 45, seed=21, unwrapped=False)
    first, second, shift, vector = other(positions, cell, periodic, 3.3)
    # they name the pair i → j, with the image of j
    expected = sorted(
        zip(first.tolist(), second.tolist(), *shift.T.tolist(), *vector.T.tolist(), strict=True)
    )
    pairs = search(positions, cell, periodic, 3.3, method)
    assert rows(pairs) == [row[:5] for row in expected]
    np.testing.assert_allclose(pairs.vector.numpy(), [row[5:] for row in expected], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("name", "edges"), [("test0", 97_530), ("test1", 97_460)])
def test_edge_counts_of_the_public_structures(
    public_data: Path, name: str, edges: int, method: str
) -> None:
    path = public_data / f"{name}.dump"
    bounds = np.loadtxt(path, skiprows=5, max_rows=3)
    table = np.loadtxt(path, skiprows=9)
    cell = np.diag(bounds[:, 1] - bounds[:, 0])
    pairs = search(table[:, 2:5], cell, cutoff=5.0, method=method)
    assert len(pairs.shift) == edges


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", CELLS)
def test_the_device_does_not_show(name: str, method: str) -> None:
    place = torch.as_tensor(random_positions(CELLS[name], 300, seed=4, unwrapped=True))
    cell = torch.as_tensor(CELLS[name])
    here = neighbor_pairs(place, cell, EVERYWHERE, 2.8, method=method)
    there = neighbor_pairs(place, cell, EVERYWHERE, 2.8, method=method, device="cuda")
    assert there.vector.device.type == "cpu"
    assert torch.equal(here.edge_index, there.edge_index)
    assert torch.equal(here.shift, there.shift)
    torch.testing.assert_close(here.vector, there.vector)
