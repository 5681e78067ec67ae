"""Reading and writing eam/alloy and eam/fs files, and what is said about bad ones."""

from __future__ import annotations

import gzip
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mgsym import read
from mgsym.data_tools.simulation.potentials.eam import EAM, knots, tabulated
from mgsym.data_tools.simulation.potentials.eam_forces import evaluate_structures
from mgsym.data_tools.simulation.potentials.files import (
    load_potential,
    read_potential,
    write_potential,
)
from mgsym.data_tools.simulation.potentials.zhou_johnson_wadley import NAME, zhou_cu_zr
from mgsym.errors import InputError, InputWarning, UsageError

# two elements, 5 densities 0.5 apart, 6 distances 0.4 Å apart; every table has its own numbers
HEAD = """Someone's potential, with an accent: Müller
# the comment may hold anything: 7 numbers

2 Zr Cu
5 0.5 6 0.4 1.9
"""
ALLOY = (
    HEAD
    + """40 91.224 3.2 hcp
0 -1 -2 -3 -4
1.5 1.4 1.3 1.2 1.1 0
29 63.546 3.615 fcc
0 -.1 -.2 -.3
-4.0E-01
2.5 2.4 2.3 2.2 2.1
0
9 8 7 6 5 0
19 18 17 16
15 0
29 28 27 26 25 0
"""
)
FS = (
    HEAD
    + """40 91.224
0 -1 -2 -3 -4  1.5 1.4 1.3 1.2 1.1 0
11.5 11.4 11.3 11.2 11.1 0

29 63.546 3.615 fcc
0 -.1 -.2 -.3 -.4
2.5 2.4 2.3 2.2 2.1 0
12.5 12.4 12.3 12.2 12.1 0
9 8 7 6 5 0 19 18 17 16 15 0 29 28 27 26 25 0
"""
)

# each table begins on a line of its own, as LAMMPS needs it
FS_LINES = (
    FS.replace("-4  1.5", "-4\n1.5").replace("5 0 19", "5 0\n19").replace("15 0 29", "15 0\n29")
)
CASES = Path(__file__).parents[3] / "cases"
Change = Callable[[str], str]


def saved(folder: Path, text: str, name: str = "CuZr.eam") -> Path:
    path = folder / name
    path.write_text(text, encoding="latin-1")
    return path


def same(a: EAM, b: EAM) -> bool:
    """Whether two potentials are one, but for the rounding of a table's last value."""
    tables = (a.pair, b.pair), (a.density, b.density), (a.embedding, b.embedding)
    numbers = [(p.species, p.masses, p.cutoff, p.spacing, p.density_spacing) for p in (a, b)]
    return numbers[0] == numbers[1] and all(
        torch.allclose(x, y, rtol=0.0, atol=1e-14) for x, y in tables
    )


# --- what is read ----------------------------------------------------------------------------


def test_reads_eam_alloy(tmp_path: Path) -> None:
    potential = read_potential(saved(tmp_path, ALLOY))
    assert potential.species == ("Zr", "Cu")
    assert potential.masses == (91.224, 63.546)
    assert (potential.cutoff, potential.spacing, potential.density_spacing) == (1.9, 0.4, 0.5)
    assert potential.name == "CuZr.eam"
    embedding, density, pair = map(knots, (potential.embedding, potential.density, potential.pair))
    assert embedding[:, 1].tolist() == [-1.0, -0.1]
    # an atom gives the same to all
    assert density[..., 0].tolist() == [[1.5, 1.5], [2.5, 2.5]]
    assert pair[..., 1].tolist() == [[8.0, 18.0], [18.0, 28.0]]


def test_reads_eam_fs(tmp_path: Path) -> None:
    potential = read_potential(saved(tmp_path, FS))
    density, pair = knots(potential.density), knots(potential.pair)
    # the first block of Zr is what it gives Zr, the second what it gives Cu
    assert density[..., 0].tolist() == [[1.5, 11.5], [2.5, 12.5]]
    assert pair[..., 1].tolist() == [[8.0, 18.0], [18.0, 28.0]]
    assert knots(potential.embedding)[:, 1].tolist() == [-1.0, -0.1]


def test_compressed_and_windows_files_read_alike(tmp_path: Path) -> None:
    expected = read_potential(saved(tmp_path, ALLOY))
    packed = tmp_path / "CuZr.eam.gz"
    packed.write_bytes(gzip.compress(ALLOY.encode()))
    assert same(read_potential(packed), expected)
    assert same(read_potential(saved(tmp_path, ALLOY.replace("\n", "\r\n"))), expected)


def test_reads_the_mendelev_file(mendelev: Path) -> None:
    potential = read_potential(mendelev)
    assert potential.species == ("Cu", "Zr")
    assert potential.masses == (63.546, 91.2240)
    assert potential.pair.shape == (2, 2, 9999, 4)
    assert potential.cutoff == 7.6


@pytest.mark.parametrize(("text", "style"), [(ALLOY, "alloy"), (FS_LINES, "fs")])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("0.4 1.9", "0.4 1.9 7"),
        lambda text: text.replace("0.4 1.9", "0.4 1.9 nrho drho nr dr cutoff"),
        lambda text: text.replace("0.4 1.9", "0.4\n1.9"),
        lambda text: text.replace("5 0.5 6 0.4 1.9", "5 0.5\n6 0.4\n\n1.9 A, and words"),
        lambda text: text.replace("-4\n", "-4 -5 -6\n"),
        lambda text: text.replace("1.1 0\n", "1.1 0 and words\n"),
        lambda text: text.replace("25 0\n", "25 0 -1\n"),
        lambda text: text + "\nend of file\n",
        lambda text: text + "7 8 9\n",
        lambda text: text.replace("-", "\u2212"),
        lambda text: text.replace(" ", "\u00a0"),
    ],
)
def test_reads_what_lammps_reads(tmp_path: Path, text: str, style: str, change: Change) -> None:
    expected = read_potential(saved(tmp_path, text, f"good.eam.{style}"))
    path = tmp_path / f"a.eam.{style}"
    path.write_text(change(text), encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        assert same(read_potential(path), expected)


def test_values_passed_over_are_said(tmp_path: Path) -> None:
    path = saved(tmp_path, ALLOY.replace("1.5 1.4", "1.5 1.45 1.4") + "7 8\n")
    with pytest.warns(InputWarning, match="CuZr.eam: 3 values more than the sizes in line 5 call"):
        potential = read_potential(path)
    assert knots(potential.density)[0, 0].tolist() == pytest.approx([1.5, 1.45, 1.4, 1.3, 1.2, 1.1])


@pytest.mark.parametrize("name", ["X", "Qq"])
def test_a_name_of_no_element_is_left_out(tmp_path: Path, name: str) -> None:
    found = read_potential(saved(tmp_path, ALLOY.replace("Zr Cu", f"{name} Cu")))
    assert (found.species, found.masses) == (("Cu",), (63.546,))
    assert knots(found.density)[0, 0, 0] == 2.5
    assert knots(found.pair)[0, 0, 0] == 29
    mine = read_potential(saved(tmp_path, FS_LINES.replace("Zr Cu", f"Zr {name}")))
    assert (mine.species, knots(mine.density)[0, 0, 0]) == (("Zr",), 1.5)


@pytest.mark.parametrize("name", ["extra_value", "words_after_sizes", "text_after_tables"])
def test_energy_of_lammps_with_files_that_hold_more(name: str) -> None:
    structure = read(CASES / "extra_value_glass.xyz")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InputWarning)
        potential = read_potential(CASES / f"{name}.eam.alloy")
    assert float(evaluate_structures(potential, structure).energy) == pytest.approx(
        -56.783984, abs=5e-7
    )


# --- what is written -------------------------------------------------------------------------


def test_what_is_written_reads_the_same(tmp_path: Path) -> None:
    for name, text, style in (("a.eam", ALLOY, "eam/alloy"), ("f.eam.gz", FS, "eam/fs")):
        potential = read_potential(saved(tmp_path, text))
        assert write_potential(tmp_path / name, potential) == style
        assert same(read_potential(tmp_path / name), potential)
    analytic = zhou_cu_zr()
    assert write_potential(tmp_path / "analytic.eam", analytic) == "eam/alloy"
    assert same(read_potential(tmp_path / "analytic.eam"), analytic)


def test_three_elements_keep_their_pairs(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    pair = torch.randint(9, (3, 3, 7), generator=generator).double()
    density = torch.randint(9, (3, 3, 7), generator=generator).double()
    embedding = torch.randint(9, (3, 6), generator=generator).double()
    masses = (26.982, 63.546, 91.224)
    tables = (pair + pair.transpose(0, 1), density, embedding)
    potential = tabulated(("Al", "Cu", "Zr"), masses, 0.6, 0.1, 0.2, *tables)
    assert write_potential(tmp_path / "three.eam", potential) == "eam/fs"
    found = read_potential(tmp_path / "three.eam")
    assert torch.equal(knots(found.pair), pair + pair.transpose(0, 1))
    assert torch.equal(knots(found.density), density)
    assert torch.equal(knots(found.embedding), embedding)


def test_a_file_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = saved(tmp_path, ALLOY)
    with pytest.raises(UsageError, match="exists already"):
        write_potential(path, zhou_cu_zr())
    assert path.read_text(encoding="latin-1") == ALLOY


# --- which potential -------------------------------------------------------------------------


def test_a_file_wins_over_the_variable_over_the_analytic_potential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MGSYM_POTENTIAL", raising=False)
    assert load_potential().name == NAME
    monkeypatch.setenv("MGSYM_POTENTIAL", str(saved(tmp_path, ALLOY, "variable.eam")))
    assert load_potential().name == "variable.eam"
    assert load_potential(saved(tmp_path, FS, "given.eam")).name == "given.eam"
    monkeypatch.setenv("MGSYM_POTENTIAL", str(tmp_path / "nowhere.eam"))
    with pytest.raises(InputError, match=r"nowhere\.eam: no such file"):
        load_potential()


# --- what is wrong ---------------------------------------------------------------------------

FUNCFL = "Cu functions (universal 3)\n29 63.550 3.6150 FCC\n5 5.0e-4 5 1.0e-3 4.95\n1 2 3 4 5\n"
XYZ = "2\nLattice='5 0 0 0 5 0 0 0 5'\nCu 0 0 0\nZr 1 1 1\nZr 2 2 2\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ALLOY.replace("\n15 0\n", "\n15\n"),
            r"line 9: expected 11 .eam/alloy. or 17 .eam/fs. values in the tables of Cu, "
            r"found 10: .*cut short",
        ),
        (
            FS[:-4],
            r"line 5: expected 40 .eam/alloy. or 52 .eam/fs. values in tables for these sizes",
        ),
        (HEAD, r"line 5: expected 40 .* found 0"),
        (ALLOY.replace("2.4", "2.4x"), r"line 12: expected numbers, found '2\.4x'"),
        (ALLOY.replace("2.4", "NaN"), r"line 12: expected numbers, found 'NaN'"),
        (ALLOY.replace("2.4", "1e999"), r"line 12: expected numbers, found '1e999'"),
        (ALLOY.replace("2.4 2.3", "2.4 oops 2.3"), r"line 12: expected numbers, found 'oops'"),
        (ALLOY.replace("2 Zr Cu", "2 Zr"), r"line 4: expected the number of elements .* '2 Zr'"),
        (ALLOY.replace("2 Zr Cu", "Zr Cu"), r"line 4: expected the number of elements"),
        (ALLOY.replace("2 Zr Cu", "0"), r"line 4: the potential has no elements"),
        (ALLOY.replace("2 Zr Cu", "2 Cu Cu"), r"line 4: element Cu is named twice"),
        (ALLOY.replace("2 Zr Cu", "2 Qq X"), r"line 4: the potential has no elements"),
        (
            ALLOY.replace("0.4 1.9", "0.4"),
            r"line 5: expected nrho drho nr dr cutoff, .* '5 0\.5 6 0\.4'",
        ),
        (ALLOY.replace("5 0.5 6", "5 0.5 6.5"), r"line 5: expected nrho drho nr dr cutoff"),
        (ALLOY.replace("5 0.5 6", "5 -0.5 6"), r"line 5: the spacing of densities, drho, is -0\.5"),
        (ALLOY.replace("0.4 1.9", "0 1.9"), r"line 5: the spacing of distances, dr, is 0"),
        (ALLOY.replace("0.4 1.9", "0.4 nan"), r"line 5: the cutoff is nan"),
        (ALLOY.replace("5 0.5 6", "4 0.5 6"), r"line 5: nrho is 4, expected at least 5"),
        (ALLOY.replace("5 0.5 6", "5 0.5 0"), r"line 5: nr is 0, expected at least 5"),
        (
            ALLOY.replace("91.224", "heavy"),
            r"line 6: expected atomic number, mass, .* found '40 heavy",
        ),
        (ALLOY.replace("91.224", "-1"), r"line 6: the mass is -1"),
        (FUNCFL, r"line 3: this is a funcfl file .* eam/alloy or eam/fs"),
        (XYZ, r"line 4: expected the number of elements .* 'Zr 1 1 1': give an eam/alloy"),
        ("nothing\nto\nsee\n", "the file ends before: give an eam/alloy or eam/fs file"),
        ("\0\1\2\n" * 9, "line 4: expected the number of elements"),
        ("", "the file is empty"),
    ],
)
def test_a_bad_file_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = saved(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_potential(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_damaged_archive_is_explained(tmp_path: Path) -> None:
    path = tmp_path / "CuZr.eam.gz"
    path.write_bytes(gzip.compress(ALLOY.encode())[:-20])
    with pytest.raises(InputError, match=r"CuZr\.eam\.gz: the compressed file is cut short"):
        read_potential(path)
    with pytest.raises(InputError, match="is a folder"):
        read_potential(tmp_path)
