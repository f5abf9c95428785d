"""Files and folders that are written whole or not at all."""

import pytest

from parframe.atomic_files import new_folder, replace_folder, write_text
from parframe.errors import ParframeError


def test_a_file_that_cannot_be_replaced_is_left_as_it_was(tmp_path, monkeypatch) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(ParframeError, match="No space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_filled_replaces_the_old_one(tmp_path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (target / "old").touch()
    with new_folder(target, lambda path: None, wait=True) as new:
        (new / "new").touch()
        replace_folder(target, new)
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "new"]


def fail_in(folder):
    (folder / "half").touch()
    raise OSError(28, "disk is full")


def test_a_folder_that_fails_leaves_nothing(tmp_path) -> None:
    with (
        pytest.raises(ParframeError, match="disk is full"),
        new_folder(tmp_path / "out", lambda path: None, wait=True) as new,
    ):
        fail_in(new)
    assert list(tmp_path.iterdir()) == []


def test_a_second_run_that_does_not_wait_is_refused(tmp_path) -> None:
    target = tmp_path / "out"
    with (
        new_folder(target, lambda path: None, wait=True),
        pytest.raises(ParframeError, match="being written by another run"),
        new_folder(target, lambda path: None, wait=False),
    ):
        pass
