from __future__ import annotations

from collections.abc import Callable

import pytest

from mgsym.errors import InputError, UsageError
from mgsym.evaluation.splits import Split, leave_one_group_out, split_by_glass
from mgsym.graph import Graph, collate

Make = Callable[..., Graph]


def names(split: Split) -> dict[str, str]:
    return {role: " ".join(found) for role, found in split.names().items()}


@pytest.fixture
def seven(make_graph: Make) -> list[Graph]:
    """Seven files of four glasses, as in the public dataset."""
    glasses = ["g0", "g0", "g2", "g3", "g4", "g4", "g4"]
    return [make_graph(f"train{i}", glass=g, side=2) for i, g in enumerate(glasses)]


def test_files_decide(five_graphs: list[Graph]) -> None:
    assert names(split_by_glass(five_graphs)) == {
        "train": "s0 s1 s2", "validation": "s3", "test": "s4", "unused": "",
    }  # fmt: skip


def test_without_marks_whole_glasses_are_held_out(seven: list[Graph], make_graph: Make) -> None:
    assert names(split_by_glass(seven)) == {
        "train": "train0 train1 train2",
        "validation": "train3",
        "test": "train4 train5 train6",
        "unused": "",
    }
    two = names(split_by_glass(seven[:3]))
    assert (two["train"], two["validation"], two["test"]) == ("train0 train1", "train2", "")


def test_asked_for_by_glass_name_or_pattern(seven: list[Graph]) -> None:
    asked = names(split_by_glass(seven, validation=["g3"], test=["train[456]"]))
    assert asked["validation"] == "train3"
    assert asked["test"] == "train4 train5 train6"
    assert asked["train"] == "train0 train1 train2"


def test_only_test_asked_for_still_validates(seven: list[Graph]) -> None:
    found = names(split_by_glass(seven, test=["g2"]))
    assert found["test"] == "train2"
    assert found["validation"] == "train4 train5 train6"


def test_asking_replaces_what_files_say(five_graphs: list[Graph]) -> None:
    found = names(split_by_glass(five_graphs, validation=["s0"], test=["s1"]))
    # the file's validation structure trains; its test structure never does
    assert found == {"train": "s2 s3", "validation": "s0", "test": "s1", "unused": "s4"}


def test_no_validation_on_request(five_graphs: list[Graph]) -> None:
    found = names(split_by_glass(five_graphs, validation=[]))
    assert (found["train"], found["validation"]) == ("s0 s1 s2 s3", "")


def test_a_glass_never_straddles(seven: list[Graph], make_graph: Make) -> None:
    with pytest.raises(UsageError, match=r"train4 \(train\) and train6 \(validation\) are one"):
        split_by_glass(seven, validation=["train6"])
    marked = [make_graph("a", glass="g", split="train"), make_graph("b", glass="g", split="test")]
    with pytest.raises(InputError, match=r"a \(train\) and b \(test\) are one glass, 'g'"):
        split_by_glass(marked)


def test_unlabelled_structures_take_no_part(make_graph: Make, seven: list[Graph]) -> None:
    bare = make_graph("bare", labelled=False)
    assert names(split_by_glass([*seven, bare]))["unused"] == "bare"
    with pytest.raises(InputError, match="bare has no labels, so it cannot be validation"):
        split_by_glass([*seven, bare], validation=["bare"])
    with pytest.raises(InputError, match="no labelled structure is left to train on: of 1"):
        split_by_glass([bare])


def test_mistakes_are_named(seven: list[Graph]) -> None:
    with pytest.raises(UsageError, match=r"is called 'train9'; there are train0, train1"):
        split_by_glass(seven, validation=["train9"])
    with pytest.raises(UsageError, match="train2 is asked for validation and for test"):
        split_by_glass(seven, validation=["g2"], test=["train2"])
    with pytest.raises(InputError, match="no labelled structure is left for validation"):
        split_by_glass(seven[:2])
    with pytest.raises(InputError, match="no labelled structure is left to train on"):
        split_by_glass(seven, validation=["*"])
    with pytest.raises(InputError, match="no labelled structure is left to train on"):
        split_by_glass([])
    with pytest.raises(InputError, match="one structure per graph, found 2"):
        split_by_glass([collate(seven[:2])])


def test_leave_one_group_out(seven: list[Graph]) -> None:
    folds = [names(fold) for fold in leave_one_group_out(seven)]
    assert [f["test"] for f in folds] == [
        "train0 train1", "train2", "train3", "train4 train5 train6",
    ]  # fmt: skip
    assert [f["validation"] for f in folds] == [
        "train2", "train3", "train4 train5 train6", "train0 train1",
    ]  # fmt: skip
    assert folds[0]["train"] == "train3 train4 train5 train6"
    assert folds[3]["train"] == "train2 train3"
    with pytest.raises(InputError, match="at least three with labels, found 2: g0, g2"):
        leave_one_group_out(seven[:3])


def test_leave_one_group_out_without_a_stopping_glass(seven: list[Graph]) -> None:
    folds = [names(fold) for fold in leave_one_group_out(seven, stopping=False)]
    assert folds[1] == {
        "train": "train0 train1 train3 train4 train5 train6",
        "validation": "",
        "test": "train2",
        "unused": "",
    }
    assert [f["test"] for f in leave_folds(seven[:3])] == ["train0 train1", "train2"]
    with pytest.raises(InputError, match="at least two with labels, found 1: g0"):
        leave_folds(seven[:2])


def leave_folds(graphs: list[Graph]) -> list[dict[str, str]]:
    return [names(fold) for fold in leave_one_group_out(graphs, stopping=False)]
