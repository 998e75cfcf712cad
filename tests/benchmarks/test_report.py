"""Ratios, limits, tables and memory figures of the benchmarks."""

import gc
import json

import pytest

from benchmarks.child import Child, memory
from benchmarks.common import GIB, BenchmarkError, alternate, need_memory
from benchmarks.report import Report, absolute, ratio, seconds_row, table


def test_ratio_divides_best_by_best_and_takes_the_median_of_the_rounds():
    found = ratio("peer / ours", above=[6.0, 8.0, 40.0], below=[2.0, 4.0, 10.0], at_least=1.1)
    assert (found.best, found.median, found.met) == (3.0, 3.0, True)
    assert found.line() == "peer / ours: 3.000 x best, 3.000 x median (wanted at least 1.1 x: met)"


@pytest.mark.parametrize(("at_most", "met"), [(1.99, False), (2.0, True)])
def test_a_limit_is_judged_by_the_best_round(at_most, met):
    assert ratio("a / b", [4.0, 9.0], [2.0, 3.0], at_most=at_most).met is met
    assert absolute("start", [2.0, 9.0], at_most=at_most).met is met


def test_a_missed_limit_stands_out():
    assert (
        absolute("start", [7.0], at_most=5).line() == "start: 7.000 s best, 7.000 s median (wanted at most 5 s: MISSED)"
    )


def test_sides_take_turns():
    turns = []
    alternate(("a", "b"), 2, lambda side: turns.append(side) or {"seconds": 1.0})
    assert turns == ["a", "b", "a", "b"]


def test_a_table_lines_its_columns_up():
    rows = [seconds_row("ours", [{"seconds": 1.5}, {"seconds": 2.5}]), {"": "peer", "best s": 10.0}]
    assert table(rows).splitlines() == ["      best s  median s", "ours   1.500     2.000", "peer  10.000"]


def test_the_report_is_written_as_json(tmp_path, capsys):
    report = Report("title", {"rounds": 1}, findings=[ratio("a / b", [3.0], [2.0])], rounds={"a": [{"seconds": 3.0}]})
    report.finish(tmp_path / "deep" / "result.json")
    written = json.loads((tmp_path / "deep" / "result.json").read_text("utf-8"))
    assert written["findings"][0]["best"] == 1.5
    assert written["rounds"] == {"a": [{"seconds": 3.0}]}
    assert "a / b: 1.500 x best" in capsys.readouterr().out


def test_too_little_memory_is_said_before_anything_starts():
    with pytest.raises(BenchmarkError, match=r"needs about 1000000\.0 GiB"):
        need_memory(1e6, "A mammoth")


def test_memory_sees_what_is_touched_and_remembers_it_as_the_peak():
    gc.collect()
    before = memory()
    if "anonymous_gib" not in before:
        pytest.skip("this system has no /proc")
    held = b"\1" * (GIB // 2)
    holding = memory()
    assert holding["anonymous_gib"] - before["anonymous_gib"] == pytest.approx(1 / 2, abs=0.1)
    del held
    assert memory()["peak_gib"] >= holding["anonymous_gib"] + holding["file_gib"] - 0.05


def test_a_child_that_dies_is_told_with_its_last_words():
    with Child("benchmarks.preview", ["--child"], ours=False) as child:
        with pytest.raises(BenchmarkError, match=r"(?s)ended without an answer \(exit code 2\).*expected one argument"):
            child.ask()
