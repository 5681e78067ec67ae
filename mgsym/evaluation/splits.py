"""Which structures train, validate and test. A glass never straddles a split.

Atoms of one glass see nearly the same surroundings in every structure made of it, so a split by
file or by atom would measure memory. The unit is the glass, which every graph names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from mgsym.errors import InputError, MgsymError, UsageError
from mgsym.graph import Graph
from mgsym.graph.operations import glass_of

_ROLES = ("train", "validation", "test")


@dataclass(frozen=True)
class Split:
    """The structures of each role, one graph per structure.

    `unused` are those without labels, and those marked ``test`` when others were asked for.
    """

    train: list[Graph]
    validation: list[Graph]
    test: list[Graph]
    unused: list[Graph] = field(default_factory=list)

    def items(self) -> Iterator[tuple[str, list[Graph]]]:
        """``("train", graphs)``, ``("validation", …)``, ``("test", …)``."""
        return ((role, getattr(self, role)) for role in _ROLES)

    def names(self) -> dict[str, list[str]]:
        """Names of the structures by role, ``unused`` included."""
        return {role: [g.names[0] for g in getattr(self, role)] for role in (*_ROLES, "unused")}


def split_by_glass(
    graphs: Sequence[Graph],
    validation: Sequence[str] | None = None,
    test: Sequence[str] | None = None,
) -> Split:
    """Divide structures as asked, else as their files say, else by holding out glasses.

    Without a test set asked for or marked, and nothing marked at all, the last of three or more
    glasses tests. Without a validation set, the last of two or more training glasses validates.
    Structures without labels take no part.

    Args:
        graphs: one structure each; their order decides what "last" means.
        validation: names or glasses of structures, or patterns such as ``train[45]``; in place
            of what files say. None: decided here; empty: no validation.
        test: likewise. Structures that files mark ``test`` never train.

    Raises:
        UsageError: a pattern matches nothing, a structure is asked for twice, or what is asked
            for would put a glass on both sides.
        InputError: files put a glass on both sides, or no structure is left to train or
            validate with.
    """
    roles = _marked_roles(graphs, validation, test)
    if validation is None and test is None and not any(g.splits[0] for g in graphs):
        _hold_out(graphs, roles, "test", least=3)
    if validation is None and "validation" not in roles:
        _hold_out(graphs, roles, "validation", least=2)
    _refuse_straddling(graphs, roles, UsageError if validation or test else InputError)
    chosen = {
        role: [g for g, r in zip(graphs, roles, strict=True) if r == role and _has_labels(g)]
        for role in _ROLES
    }
    if not chosen["train"]:
        raise InputError(
            f"no labelled structure is left to train on: of {len(graphs)} "
            f"({_counts(roles)}) {sum(map(_has_labels, graphs))} have labels"
        )
    if not chosen["validation"] and (validation is None or len(validation) > 0):
        raise InputError(
            "no labelled structure is left for validation: name one (--val NAME), add another "
            "glass, or train a fixed number of epochs without any (--val none)"
        )
    used = {id(g) for graphs_of in chosen.values() for g in graphs_of}
    return Split(**chosen, unused=[g for g in graphs if id(g) not in used])


def leave_one_group_out(graphs: Sequence[Graph], stopping: bool = True) -> list[Split]:
    """One fold per glass: it tests, the next in the list stops early, the others train.

    Nothing in a fold looks at the glass left out, so the mean over folds is an honest estimate.

    Args:
        graphs: one structure each; those without labels are left out.
        stopping: whether a glass stops early; otherwise it trains with the others, and there is
            no validation.

    Raises:
        InputError: fewer than three glasses have labels (two, where none stops early).
    """
    labelled = [g for g in graphs if _has_labels(g)]
    groups = list(dict.fromkeys(glass_of(g) for g in labelled))
    if len(groups) < 2 + stopping:
        raise InputError(
            f"leaving one glass out needs at least {'three' if stopping else 'two'} with labels, "
            f"found {len(groups)}: {', '.join(groups)}"
        )
    folds = []
    for i, left_out in enumerate(groups):
        following = groups[(i + 1) % len(groups)] if stopping else None
        test, validation = (
            [g for g in labelled if glass_of(g) == group] for group in (left_out, following)
        )
        rest = [g for g in labelled if glass_of(g) not in (left_out, following)]
        folds.append(Split(rest, validation, test))
    return folds


def _marked_roles(
    graphs: Sequence[Graph], validation: Sequence[str] | None, test: Sequence[str] | None
) -> list[str]:
    """A role per graph: asked for, else what its file says, else ``train``."""
    for graph in graphs:
        if graph.num_structures != 1:
            raise InputError(f"expected one structure per graph, found {graph.num_structures}")
    asked_validation = _matching(graphs, validation, "validation")
    asked_test = _matching(graphs, test, "test")
    if both := asked_validation & asked_test:
        name = graphs[min(both)].names[0]
        raise UsageError(f"{name} is asked for validation and for test: choose one")
    roles = []
    for i, graph in enumerate(graphs):
        role = graph.splits[0] or "train"
        if role == "validation" and validation is not None:
            role = "train"
        if role == "test" and test is not None:
            role = "unused"
        role = "validation" if i in asked_validation else "test" if i in asked_test else role
        roles.append(role)
    return roles


def _matching(graphs: Sequence[Graph], patterns: Sequence[str] | None, role: str) -> set[int]:
    matches: set[int] = set()
    for pattern in patterns or ():
        hits = {
            i
            for i, g in enumerate(graphs)
            if fnmatchcase(g.names[0], pattern) or fnmatchcase(g.glasses[0], pattern)
        }
        if not hits:
            names = ", ".join(g.names[0] for g in graphs)
            raise UsageError(f"no structure or glass is called {pattern!r}; there are {names}")
        for i in hits:
            if not _has_labels(graphs[i]):
                raise InputError(f"{graphs[i].names[0]} has no labels, so it cannot be {role}")
        matches |= hits
    return matches


def _hold_out(graphs: Sequence[Graph], roles: list[str], role: str, least: int) -> None:
    """Give `role` to the last labelled training glass, where there are at least `least`."""
    training = [
        glass_of(g) for g, r in zip(graphs, roles, strict=True) if r == "train" and _has_labels(g)
    ]
    if len(set(training)) < least:
        return
    for i, graph in enumerate(graphs):
        if glass_of(graph) == training[-1]:
            roles[i] = role


def _refuse_straddling(
    graphs: Sequence[Graph], roles: Sequence[str], error: type[MgsymError]
) -> None:
    first: dict[str, int] = {}
    for i, graph in enumerate(graphs):
        if roles[i] == "unused":
            continue
        earlier = first.setdefault(glass_of(graph), i)
        if roles[earlier] != roles[i]:
            raise error(
                f"{graphs[earlier].names[0]} ({roles[earlier]}) and {graph.names[0]} ({roles[i]}) "
                f"are one glass, {glass_of(graph)!r}: its atoms would be on both sides of the "
                "split; name the glass instead, so that it goes to one side"
            )


def _has_labels(graph: Graph) -> bool:
    return bool(graph.labelled.any())


def _counts(roles: Sequence[str]) -> str:
    return ", ".join(f"{roles.count(role)} {role}" for role in dict.fromkeys(roles)) or "none"


def refuse_equal_names(graphs: Sequence[Graph]) -> None:
    """InputError where two structures have one name."""
    names = [g.names[0] for g in graphs]
    if repeated := sorted({n for n in names if names.count(n) > 1}):
        raise InputError(f"several structures are called {repeated[0]!r}: give each its own name")
