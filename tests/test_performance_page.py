"""The table of docs/performance.md keeps a column for each processor."""

from pathlib import Path

from benchmarks.page import BEGIN, END, Table, merged, put, read

PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
MEASURED = {"id": "L1", "what": "a loop", "ratio": 1.05, "low": 1.0, "high": 1.1, "demand": 1.03}


def test_measuring_on_one_processor_keeps_the_column_of_another(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    first = merged(Table({}, {}), "One", "2 cores; 5 rounds", [MEASURED])
    put(page, first)
    other = {**MEASURED, "ratio": 0.9, "low": 0.8, "high": 1.0}
    put(page, merged(read(page.read_text()), "Two", "4 cores; 3 rounds", [other]))

    found = read(page.read_text())

    assert found.rows["L1", "a loop"] == {
        "demand": "<= 1.03",
        "One": "1.05 (1 - 1.1), missed",
        "Two": "0.9 (0.8 - 1)",
        "peak MB, own / peer": "",
    }
    assert found.processors == {"One": "2 cores; 5 rounds", "Two": "4 cores; 3 rounds"}
    assert page.read_text().startswith("before\n") and page.read_text().endswith("after\n")


def test_a_row_that_was_measured_again_replaces_its_own_cell_alone():
    lower = {**MEASURED, "what": "another loop"}
    before = merged(Table({}, {}), "One", "old", [MEASURED, lower])
    after = merged(before, "One", "new", [{**MEASURED, "ratio": 1.01}])
    assert after.rows["L1", "a loop"]["One"] == "1.01 (1 - 1.1)"
    assert after.rows["L1", "another loop"] == before.rows["L1", "another loop"]


def test_the_shipped_page_has_two_processors_and_survives_being_written(tmp_path):
    found = read(PAGE.read_text(encoding="utf-8"))
    assert len(found.processors) >= 2 and found.rows["T2", "conv VAE, bf16, genbench-bf16 / pythae"]
    copy = tmp_path / "page.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    put(copy, found)
    assert copy.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
