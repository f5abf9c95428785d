import pickle

import pytest

from parframe.errors import KINDS, ParframeError, did_you_mean, nearest


def test_an_error_is_one_line_of_kind_place_fault_and_hint() -> None:
    error = ParframeError("mesh", "rank 9", "the mesh has 8 ranks", "give a rank from 0 to 7")
    assert str(error) == "error[mesh] rank 9: the mesh has 8 ranks; give a rank from 0 to 7"
    assert (error.kind, error.where) == ("mesh", "rank 9")


def test_every_kind_has_an_exit_code_of_its_own() -> None:
    codes = [code for code, _ in KINDS.values()]
    assert len(set(codes)) == len(codes)
    assert all(1 < code < 126 for code in codes)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_knows_its_exit_code(kind: str) -> None:
    assert ParframeError(kind, "", "", "").exit_code == KINDS[kind][0]


def test_an_unknown_kind_is_a_fault_of_the_caller() -> None:
    with pytest.raises(ValueError, match=r"'messh' \(did you mean 'mesh'\?\)"):
        ParframeError("messh", "here", "wrong", "hint")


def test_an_error_survives_pickling() -> None:
    error = ParframeError("spec", "a", "b", "c")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize(
    ("word", "choice"),
    [("paralel", "parallel"), ("PARALLEL", "parallel"), ("devcies", "devices"), ("xyz", None)],
)
def test_the_nearest_choice_is_found_whatever_its_case(word: str, choice: str | None) -> None:
    assert nearest(word, ["parallel", "devices"]) == choice


def test_no_near_choice_leaves_the_sentence_as_it_is() -> None:
    assert did_you_mean("xyz", ["parallel"]) == ""
