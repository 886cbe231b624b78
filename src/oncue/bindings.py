"""From a row of the user's to a key, a group and a task's arguments: templates over its columns."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from oncue.errors import ConfigError, InvalidArguments, InvalidJob
from oncue.task import Call, Task

RowArguments = Mapping[str, Any] | str | Callable[[Mapping[str, Any]], Call[Any]]


@dataclass(frozen=True, slots=True)
class Template:
    """A text with columns in braces: ``question-{id}``. Nothing but a column's name may stand in the braces."""

    text: str
    columns: tuple[str, ...]

    @classmethod
    def parse(cls, text: str, what: str) -> Template:
        """Read a template. Raises ConfigError that names ``what`` it is for."""
        columns: list[str] = []
        try:
            for _, name, spec, conversion in string.Formatter().parse(text):
                if name is None:
                    continue
                if not name.isidentifier() or spec or conversion:
                    raise ConfigError(f"{what}={text!r}: only names of columns stand in braces, not {{{name}}}.")
                columns.append(name)
        except (ValueError, TypeError) as error:
            raise ConfigError(
                f"{what}={text!r} is no template: {error}. Write for example 'question-{{id}}'; a brace itself is "
                "written twice."
            ) from error
        return cls(text, tuple(dict.fromkeys(columns)))

    def render(self, row: Mapping[str, Any]) -> str:
        """Fill in the row's values. Raises InvalidJob where one of them is empty."""
        for name in self.columns:
            if row[name] is None:
                raise InvalidJob(f"{self.text!r} needs column {name!r}, which is empty")
        return self.text.format_map(row)

    def value(self, row: Mapping[str, Any]) -> Any:
        """Return the column itself where the template is nothing else (``{id}``), else the text filled in."""
        if len(self.columns) == 1 and self.text == f"{{{self.columns[0]}}}":
            return row[self.columns[0]]
        return self.render(row)


@dataclass(frozen=True, slots=True)
class Arguments:
    """How a task is called for a row. ``columns`` are those that it needs, None for all of them."""

    task: Task[Any, Any]
    named: Mapping[str, Any] | None
    function: Callable[[Mapping[str, Any]], Call[Any]] | None
    columns: tuple[str, ...] | None

    @classmethod
    def parse(cls, task: Task[Any, Any], given: RowArguments | None) -> Arguments:
        """Check ``args=`` against the task's signature. Raises ConfigError."""
        if not isinstance(task, Task):
            raise ConfigError(f"task={task!r}: a source needs a task, a function under @app.task().")
        fields = {} if task.arguments is None else {one.name: one for one in msgspec.structs.fields(task.arguments)}
        if callable(given):
            return cls(task, None, given, None)
        if given is None or isinstance(given, str):
            needed = [name for name, one in fields.items() if one.required]
            if len(needed) > 1 or (given is not None and not fields):
                raise ConfigError(
                    f"{task.name} takes ({', '.join(fields)}): say where each comes from, "
                    "args={'parameter': '{column}'}."
                )
            if given is None:
                return cls(task, None, None, ())
            given = {(needed or list(fields))[0]: given}
        unknown = [name for name in given if name not in fields]
        missing = [name for name, one in fields.items() if one.required and name not in given]
        if unknown or missing:
            raise ConfigError(
                f"args={dict(given)!r} does not fit {task.name}({', '.join(fields)}): "
                f"unknown {unknown or 'none'}, missing {missing or 'none'}."
            )
        named = {
            name: Template.parse(value, f"args[{name!r}]") if isinstance(value, str) else value
            for name, value in given.items()
        }
        columns = [c for value in named.values() if isinstance(value, Template) for c in value.columns]
        return cls(task, named, None, tuple(dict.fromkeys(columns)))

    def call(self, key: int | str, row: Mapping[str, Any]) -> Call[Any]:
        """Return the call for a row. Raises InvalidArguments, InvalidJob, or what the user's function does."""
        if self.function is not None:
            call = self.function(row)
            if not isinstance(call, Call):
                raise InvalidArguments(f"args= returned {call!r}; it returns a call, such as task.call(row['id'])")
            return call
        fields = () if self.task.arguments is None else msgspec.structs.fields(self.task.arguments)
        types = {one.name: one.type for one in fields}
        if self.named is not None:
            values = {n: v.value(row) if isinstance(v, Template) else v for n, v in self.named.items()}
        else:
            first = next((one.name for one in fields if one.required), fields[0].name if fields else None)
            values = {} if first is None else {first: key}
        return self.task.call(**{name: _fit(value, types[name]) for name, value in values.items()})


def _fit(value: Any, kind: Any) -> Any:
    """A database's value as the parameter's type: ids are numbers in one place and texts in another."""
    if kind is str and isinstance(value, (int, float)):
        return str(value)
    if kind is int and isinstance(value, str) and value.strip().lstrip("+-").isdecimal():
        return int(value)
    if kind is bool and value in (0, 1):
        return bool(value)
    return value
