"""Structured logs: one JSON object a line, and on every line about a job which job, task, attempt and key it is.

``oncue worker --log-format json`` uses it. In an application that sets up logging itself:

    handler = logging.StreamHandler()
    handler.setFormatter(oncue.logs.JsonFormatter())
    handler.addFilter(oncue.logs.JobFilter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])

The filter is needed only where lines are formatted elsewhere than where they were made, as with a ``QueueHandler``.
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from typing import Any

from oncue.context import current_job
from oncue.job import Claimed
from oncue.tracing import current_ids

_TEXT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_ABOUT = "oncue_about"
_KNOWN = frozenset((*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", _ABOUT))
Facts = dict[str, Any]


def about(job: Claimed) -> dict[str, Facts]:
    """Return the ``extra`` of a log call that makes its line one about this attempt."""
    return {_ABOUT: {"job": job.id, "task": job.task, "attempt": job.attempt, "key": job.key}}


def facts_of(record: logging.LogRecord) -> Facts:
    """Return what a line is about: of the job that it was given, or that this code runs in; and its trace."""
    found: Facts | None = getattr(record, _ABOUT, None)
    if found is None:
        found = _running()
        if (ids := current_ids()) is not None:
            found["trace_id"], found["span_id"] = ids
    return found


def _running() -> Facts:
    try:
        job = current_job()
    except LookupError:
        return {}
    return {"job": job.id, "task": job.task, "attempt": job.attempt, "key": job.key}


class JobFilter(logging.Filter):
    """Lets every line pass, and notes on it which job it is about."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Note the job on the line."""
        setattr(record, _ABOUT, facts_of(record))
        return True


class JsonFormatter(logging.Formatter):
    """A line as one JSON object, in ASCII: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``.

    Of a line about a job ``job``, ``task``, ``attempt``, ``key``; ``trace_id`` and ``span_id`` where it is traced; of
    an exception ``error`` and ``traceback``; and as ``extra`` what the call gave as such.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line. Whatever the call was given, it is valid JSON without a line break."""
        line: Facts = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")[:-6] + "Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            **facts_of(record),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = f"{type(record.exc_info[1]).__name__}: {_shown(record.exc_info[1], str)}"
            line["traceback"] = self.formatException(record.exc_info)
        extra = {name: value for name, value in record.__dict__.items() if name not in _KNOWN}
        if extra:
            line["extra"] = {str(name): _plain(value) for name, value in extra.items()}
        return json.dumps(line)


class TextFormatter(logging.Formatter):
    """A line for people; one about a job ends with which one it is."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        """Return the line without its traceback. OnCue's own quote errors: what could forge a line is escaped."""
        line, found = super().formatMessage(record), facts_of(record)
        if record.name.partition(".")[0] == "oncue":
            line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)
        if "job" not in found:
            return line
        key = "" if found["key"] is None else f" key={found['key']}"
        return f"{line} [job={found['job']} task={found['task']} attempt={found['attempt']}{key}]"


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        return f"{_shown(record.msg, str)} {_shown(record.args, repr) if record.args else ''}".rstrip()


def _plain(value: object) -> Any:
    """Return what JSON can hold: the value itself, or its text."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return _shown(value, repr)
    return value


def _shown(value: object, how: Any) -> str:
    try:
        return str(how(value))
    except Exception as error:
        return f"(it can't be shown: {type(error).__name__})"


_format = "text"
"""In which format this process was told to log."""
FORMATS: dict[str, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


def to_stderr(level: str, format: str) -> None:
    """Have everything from ``level`` on logged to standard error, unless the application has set up logging; and
    what ``say`` is given written in the same format."""
    global _format
    _format = format
    if logging.getLogger().handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATS[format]())
    handler.addFilter(JobFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def say(text: str) -> None:
    """Write a line on this process's own life to standard error, at once: a signal handler may do so too."""
    if _format == "json":
        text = JsonFormatter().format(logging.makeLogRecord({"msg": text, "name": "oncue.cli", "levelname": "INFO"}))
    os.write(2, f"{text}\n".encode(errors="replace"))
