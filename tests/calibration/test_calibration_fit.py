"""All fitted constants can be rebuilt from their tables by one command."""

from pathlib import Path

import pytest

from benchmarks.calibration import fit

FOLDER = Path(__file__).parents[3] / "shared" / "measurements"


def test_without_tables_nothing_is_fitted_and_a_word_says_so(tmp_path, capsys):
    assert fit.main([str(tmp_path)]) == 0
    assert "skipped" in capsys.readouterr().out


def test_a_check_writes_nothing_and_tells_how_much_would_change(tmp_path, capsys, monkeypatch):
    kept = tmp_path / "data.toml"
    kept.write_text("a = 1\nb = 2\n", encoding="utf-8")
    monkeypatch.setattr(fit, "DATA", tmp_path)
    monkeypatch.setattr(fit, "tables", list)
    monkeypatch.setattr(fit, "ORDER", (("data.toml", lambda folder: "a = 1\nb = 3\n"),))
    assert fit.main(["--check"]) == 1
    assert kept.read_text(encoding="utf-8") == "a = 1\nb = 2\n"
    assert fit.main([]) == 0
    assert kept.read_text(encoding="utf-8") == "a = 1\nb = 3\n"
    assert fit.main(["--check"]) == 0
    assert capsys.readouterr().out.count("1 line changed") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kernels.json", "collectives.json"])
def test_the_same_rows_give_the_files_that_ship(name):
    if not all((FOLDER / table).is_file() for table in fit.tables()):
        pytest.skip("the tables of measurements are not next to the checkout")
    made = dict(fit.ORDER)[name]
    assert made(FOLDER) == (fit.DATA / name).read_text(encoding="utf-8")
