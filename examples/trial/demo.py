"""The trial, live: eight people, a worker that is killed with SIGKILL in the middle, and the count at the end.

Starts the stand-in of WhatsApp, the application's web side and its worker, each a process of its own, on loopback and
in a temporary folder, and stops them again. Exit code 0: nothing was lost, doubled, out of order or early; 1: something
was; 2: the demo itself could not run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from base import QUESTIONS, instant
from people import Person, cast
from report import MICROS, Report, count, due_us, percentile, read_ledger
from rich.console import Console
from rich.table import Table
from stage import Stage, StageFailed

OUTAGE = 3.0  # seconds from the kill to the restart
SETTINGS = {"TRIAL_REMINDER_AFTER": "5", "TRIAL_RECONCILE_FOR": "3"}
DEADLINE = 55.0  # seconds after which the demo gives up


class Demo:
    """The run: sets it up, shows every message, kills and restarts the worker, and counts."""

    def __init__(self, stage: Stage, people: list[Person], console: Console) -> None:
        self.stage, self.people, self.console = stage, people, console
        self.expected = len(people) * len(QUESTIONS)
        self.began = time.time()
        self.killed_us = self.restarted_us = 0
        self._shown = 0

    def set_up(self) -> None:
        """Start the processes, introduce the people, and begin their trials."""
        self.stage.open(self.people)
        self.stage.start_worker()
        for number, person in enumerate(self.people[:-1], 1):
            self.stage.begin(f"t-{number}", person)
        self.insert_by_hand(self.people[-1])

    def insert_by_hand(self, person: Person) -> None:
        """One trial comes into being as a plain row, without a word to OnCue: the source must find it."""
        self.stage.write(
            "INSERT INTO free_trials (id, wa_id, name, next_question_scheduled_for) VALUES ('by-hand', ?, ?, ?)",
            person.wa_id,
            person.name,
            instant(datetime.now(UTC) + timedelta(seconds=3)),
        )

    def run(self) -> Report:
        """Watch until everybody has answered everything, with the outage in the middle."""
        end = time.monotonic() + DEADLINE - (time.time() - self.began)
        report = self.look()
        while report.answers < self.expected and time.monotonic() < end:
            self.stage.check()
            time.sleep(0.02)
            report = self.look()
            if not self.killed_us and self.is_the_moment(report):
                self.kill_worker()
                self.watch_for(OUTAGE)
                self.restart_worker()
        self.watch_for(2.0)  # whatever comes twice shall have the time to
        return self.look()

    def is_the_moment(self, report: Report) -> bool:
        """Halfway through, while messages are under way: the more, the later we may wait."""
        done = report.questions / self.expected
        return done >= 0.4 and self.stage.in_flight() >= (2 if done < 0.6 else 1)

    def kill_worker(self) -> None:
        self.killed_us = time.time_ns() // 1000
        self.stage.kill("worker")
        self.look()
        text = f"SIGKILL for the worker, {self.stage.in_flight()} of its messages in flight"
        self.console.rule(f"[bold red]{text}", style="red")

    def restart_worker(self) -> None:
        self.console.rule("[bold green]a new worker", style="green")
        self.stage.start_worker()
        self.restarted_us = time.time_ns() // 1000

    def watch_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.02)

    def look(self) -> Report:
        """Show what is new in the ledger, and count all of it."""
        events = read_ledger(self.stage.ledger)
        for event in events[self._shown :]:
            self.show(event)
        self._shown = len(events)
        outage = (self.killed_us, self.restarted_us or time.time_ns() // 1000) if self.killed_us else None
        return count(events, self.expected, outage)

    def show(self, event: dict[str, Any]) -> None:
        """One line of the conversation."""
        seconds = f"[dim]{event['at_us'] / MICROS - self.began:6.2f} s[/]"
        name = f"[bold]{event.get('name', ''):8}[/]"
        if event["event"] == "accepted":
            late = (event["at_us"] - due_us(event)) / 1000
            colour = "cyan" if event["body"].startswith("Question") else "yellow"
            line = f"{name} [{colour}]<- {event['body']:58}[/] [dim]{late:8.1f} ms late[/]"
        elif event["event"] == "answered":
            line = f"{name} -> {event['body']}"
        else:
            line = f"[red]refused: {event['reason']}[/]"
        self.console.print(f"{seconds}  {line}", soft_wrap=True, highlight=False)


def table(report: Report) -> Table:
    """What the ledger shows."""
    shown = Table(title="Counted at the stand-in of WhatsApp", title_style="bold", show_header=False)
    shown.caption = (
        "lateness: from the due time to the arrival there,\nwith the commit of the mark and the HTTP request"
    )
    shown.add_column()
    shown.add_column(justify="right")
    shown.add_row("questions sent", f"{report.questions} of {report.expected}")
    for name, number in (
        ("lost", report.lost),
        ("doubled", report.doubled),
        ("out of order", report.out_of_order),
        ("too early", report.too_early),
    ):
        shown.add_row(name, f"[{'bold red' if number else 'green'}]{number}[/]")
    shown.add_row("reminders sent", str(report.reminders))
    shown.add_row("reminders called off by the answer", str(report.reminders_called_off))
    for name, values in (("lateness", report.lateness), ("in the outage", report.lateness_outage)):
        if values:
            figures = " / ".join(f"{percentile(values, share):.1f}" for share in (0.5, 0.99, 1.0))
            shown.add_row(f"{name} p50 / p99 / max, of {len(values)}", f"{figures} ms")
    return shown


def main(argv: list[str] | None = None) -> int:
    """Run the demo; returns the exit code."""
    parser = argparse.ArgumentParser(prog="oncue demo", description="A WhatsApp trial, live, its worker killed midway.")
    parser.add_argument("--people", type=int, default=8, help="how many people take part (default: 8)")
    options = parser.parse_args(argv)
    console = Console()
    if os.name != "posix":
        console.print("The demo needs Linux or macOS: it sends SIGKILL.")
        return 2
    console.print(
        f"{options.people} people answer {len(QUESTIONS)} questions each. The next question comes 2 to 10 s after an"
        " answer, a reminder after 5 s of silence. The stand-in of WhatsApp, the web side and the worker are three"
        " processes on this machine.\n"
    )
    with tempfile.TemporaryDirectory(prefix="oncue-demo-") as folder, Stage(Path(folder), **SETTINGS) as stage:
        demo = Demo(stage, cast(options.people), console)
        try:
            demo.set_up()
            report = demo.run()
        except StageFailed as error:
            console.print(f"The demo could not run: {error}", style="red", markup=False)
            return 2
        except KeyboardInterrupt:
            return 130
    console.print()
    console.print(table(report))
    console.print(f"[dim]in {time.time() - demo.began:.0f} s[/]")
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
