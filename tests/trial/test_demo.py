"""The demo itself runs, shows what it promises, and says so where it can't run."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from demo import Demo, table
from people import cast
from report import Report
from rich.console import Console
from stage import Stage, StageFailed

QUICK = {"STANDIN_FAST": "1", "TRIAL_PAUSE": "0.2 0.5", "TRIAL_REMINDER_AFTER": "2", "TRIAL_RECONCILE_FOR": "5"}


@pytest.mark.slow
def test_the_demo_shows_a_conversation_a_kill_and_a_clean_count(tmp_path: Path) -> None:
    screen = Console(file=StringIO(), width=100)
    with Stage(tmp_path, **QUICK) as stage:
        demo = Demo(stage, cast(4), screen)
        demo.set_up()
        report = demo.run()
    screen.print(table(report))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert report.good, shown
    assert report.lateness_outage, shown
    for part in ("Question 1 of 4", "SIGKILL", "a new worker", "Are you still there?", "16 of 16", "doubled"):
        assert part in shown


def test_a_process_that_does_not_start_ends_the_demo_with_its_log(tmp_path: Path) -> None:
    with Stage(tmp_path, STANDIN_TOKEN="EAAreal") as stage, pytest.raises(StageFailed, match="made-up token"):
        Demo(stage, cast(1), Console(file=StringIO())).set_up()


def test_the_table_shows_what_went_wrong() -> None:
    screen = Console(file=StringIO(), width=100)
    screen.print(table(Report(expected=4, questions=3, doubled=2, lateness=[1.25, 2.0])))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if "│" in line]
    assert ["questions sent", "3 of 4"] in rows
    assert ["lost", "1"] in rows
    assert ["doubled", "2"] in rows
    assert ["lateness p50 / p99 / max, of 2", "1.2 / 2.0 / 2.0 ms"] in rows
