"""Tasks: registered functions with their policy, and typed calls of them."""

from __future__ import annotations

import inspect
import re
import reprlib
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Concatenate, Generic, Literal, ParamSpec, Protocol, TypeVar, cast, overload

import msgspec

from oncue.clock import seconds_to_us
from oncue.context import JobContext
from oncue.errors import ConfigError, InvalidArguments, InvalidJob
from oncue.job import OnRetry, WhenLate
from oncue.limits import Limit, Rules
from oncue.retry import Retry

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)
MAX_NAME = 255
MAX_ID = 2**63 - 1
UNPRINTABLE = (
    r"\u0000-\u001f\u007f-\u00a0\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u1680\u180e\u2000-\u200f"
    r"\u2028-\u202f\u205f-\u206f\u3000\ue000-\uf8ff\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f\U000f0000-\U000ffffd\U00100000-\U0010fffd"
)
"""What a regular expression of any language takes as a class: controls, formats, private use, and separators but for
the space. Python's ``isprintable`` also refuses what its version doesn't know yet, so that versions would differ."""
_UNPRINTABLE = re.compile(rf"[{UNPRINTABLE}\ud800-\udfff]")
DiscardHook = Callable[["DiscardedJob"], Awaitable[None] | None]


@dataclass(frozen=True, slots=True)
class DiscardedJob:
    """What an ``on_discard`` hook is told about the job that was given up."""

    id: int
    task: str
    args: str
    key: str | None
    group: str | None
    attempt: int
    reason: str
    error: str | None


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """A task's policy. Times are in seconds or ``timedelta``; see ``OnCue.task`` for the meaning of each."""

    retry: Retry = Retry()
    timeout: float | None = None
    queue: str = "default"
    priority: int = 0
    limit: Limit | None = None
    group_limit: Limit | None = None
    concurrency: int | None = None
    max_late: float | timedelta | None = None
    when_late: WhenLate = "run"
    on_retry: OnRetry = "hold"
    retention: float | timedelta | None = None
    on_discard: DiscardHook | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.retry, Retry):
            raise ConfigError(f"retry is a Retry, such as Retry(max_attempts=3), not {self.retry!r}.")
        for name in ("limit", "group_limit"):
            if not isinstance(value := getattr(self, name), Limit | None):
                raise ConfigError(f"{name} is a Limit, such as Limit(80, per=1), not {value!r}.")
        checked_name("queue", self.queue)
        checked_whole("priority", self.priority, -100, 100)
        if self.timeout is not None and not self.timeout > 0:
            raise ConfigError(f"timeout is above 0 seconds, not {self.timeout!r}.")
        if self.when_late not in ("run", "skip", "fail"):
            raise ConfigError(f"when_late is 'run', 'skip' or 'fail', not {self.when_late!r}.")
        if self.on_retry not in ("hold", "yield"):
            raise ConfigError(f"on_retry is 'hold' or 'yield', not {self.on_retry!r}.")
        Rules(self.limit, self.group_limit, self.concurrency)
        if self.concurrency is not None and self.concurrency < 1:
            raise ConfigError(f"concurrency is at least 1, not {self.concurrency!r}.")

    @property
    def rules(self) -> Rules:
        """The limits among these options."""
        return Rules(self.limit, self.group_limit, self.concurrency)


class Call(msgspec.Struct, Generic[R_co], frozen=True, gc=False):
    """A task bound to its arguments, checked and encoded: what ``schedule`` takes."""

    task: Task[Any, R_co]
    args: str


@dataclass(frozen=True, slots=True, eq=False)
class Task(Generic[P, R_co]):
    """A registered function. ``task.call(...)`` makes a typed call; calling the task itself runs the function."""

    name: str
    function: Callable[..., Any]
    options: TaskOptions
    aliases: tuple[str, ...] = ()
    takes_context: bool = False
    is_async: bool = True
    returns: Any = Any
    arguments: type[msgspec.Struct] | None = None
    decoder: msgspec.json.Decoder[msgspec.Struct] | None = None
    keyword_only: tuple[str, ...] = ()
    retention_us: int | None = None
    max_late_us: int | None = None

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call[R_co]:
        """Bind arguments: checked against the signature and encoded as JSON now, so that a bad call fails here.

        JSON knows no NaN or infinity: a parameter annotated ``float`` refuses them, one without a type gets None.

        Raises InvalidArguments.
        """
        if self.arguments is None or self.decoder is None:
            if args or kwargs:
                raise InvalidArguments(f"{self.name} takes no arguments; got {_shown(args, kwargs)}.")
            return Call(self, "{}")
        try:
            text = msgspec.json.encode(self.arguments(*args, **kwargs))
            self.decoder.decode(text)
        except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
            raise InvalidArguments(
                f"{self.name}({_shown(args, kwargs)}) can't be scheduled: {error}. It takes "
                f"({', '.join(_signature(self.arguments))}); arguments are stored as JSON."
            ) from error
        return Call(self, text.decode())

    def decode(self, text: str) -> msgspec.Struct | None:
        """Decode stored arguments. Raises msgspec.ValidationError or msgspec.DecodeError where they don't fit."""
        return None if self.decoder is None else self.decoder.decode(text)

    def bind(self, arguments: msgspec.Struct | None, context: JobContext) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the positional and keyword arguments with which to call the function."""
        values = () if arguments is None else msgspec.structs.astuple(arguments)
        named: dict[str, Any] = {}
        if self.keyword_only:
            named = dict(zip(self.keyword_only, values[-len(self.keyword_only) :], strict=True))
            values = values[: -len(self.keyword_only)]
        return ((context, *values) if self.takes_context else values), named

    def __repr__(self) -> str:
        return f"<task {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Run the function here and now, as if it were not a task (its own arguments, the context included)."""
        return self.function(*args, **kwargs)


class TaskDecorator(Protocol):
    """What ``@app.task(...)`` returns: it keeps the function's parameters (less the context) and result type."""

    @overload
    def __call__(self, function: Callable[Concatenate[JobContext, P], Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[JobContext, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


def make_task(
    function: Callable[..., Any], name: str | None, aliases: tuple[str, ...], options: TaskOptions
) -> Task[Any, Any]:
    """Inspect a function and make its task. Raises ConfigError for a signature that can't be stored."""
    name = name or f"{function.__module__}.{function.__qualname__}"
    if not name or len(name) > 200 or any(ord(c) < 32 for c in name):
        raise ConfigError(f"A task's name has 1 to 200 printable characters, not {name!r}.")
    try:
        hints = typing.get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigError(
            f"{name}: a type in its signature can't be resolved ({error}). Import it at module level."
        ) from error
    parameters = list(inspect.signature(function).parameters.values())
    takes_context = bool(parameters) and hints.get(parameters[0].name) is JobContext
    parameters = parameters[1:] if takes_context else parameters
    fields: list[Any] = []
    for parameter in sorted(parameters, key=lambda p: p.kind is p.KEYWORD_ONLY):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise ConfigError(f"{name}: *{parameter.name} can't be stored by name. Take a list or a dict instead.")
        hint = hints.get(parameter.name, Any)
        if hint is JobContext:
            raise ConfigError(f"{name}: the context comes first; make {parameter.name} its first parameter.")
        plain = (parameter.name, hint)
        fields.append(plain if parameter.default is parameter.empty else (*plain, _default(name, parameter)))
    arguments = _struct(name, fields) if fields else None
    return Task(
        name=name,
        function=function,
        options=options,
        aliases=aliases,
        takes_context=takes_context,
        is_async=inspect.iscoroutinefunction(function),
        returns=hints.get("return", Any),
        arguments=arguments,
        decoder=None if arguments is None else msgspec.json.Decoder(arguments),
        retention_us=microseconds(options.retention),
        max_late_us=microseconds(options.max_late),
        keyword_only=tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY),
    )


def _default(name: str, parameter: inspect.Parameter) -> Any:
    if isinstance(parameter.default, (list, dict, set, bytearray)):
        kind = type(parameter.default)
        if parameter.default:
            raise ConfigError(
                f"{name}: the default of {parameter.name} is a filled {kind.__name__}. Use None or a tuple."
            )
        return msgspec.field(default_factory=kind)
    return parameter.default


def _struct(name: str, fields: list[Any]) -> type[msgspec.Struct]:
    try:
        made = msgspec.defstruct("Arguments", _ordered(fields), forbid_unknown_fields=True)
        msgspec.json.Decoder(made)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name}: its parameters can't be stored as JSON: {error}") from error
    return made


def _ordered(fields: list[Any]) -> list[Any]:
    """A keyword-only parameter may lack a default after ones that have one; give it msgspec's way to say so."""
    seen_default = any(len(f) == 3 for f in fields)
    first = next((i for i, f in enumerate(fields) if len(f) == 3), len(fields))
    if not seen_default or all(len(f) == 3 for f in fields[first:]):
        return fields
    raise TypeError("a keyword-only parameter without a default follows one with a default; reorder them")


def _signature(arguments: type[msgspec.Struct]) -> list[str]:
    shown = []
    for info in msgspec.structs.fields(arguments):
        kind = info.type if isinstance(info.type, str) else getattr(info.type, "__name__", str(info.type))
        shown.append(f"{info.name}: {kind}" + ("" if info.required else " = ..."))
    return shown


# Bounded, and whatever an argument's own __repr__ does.
_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _repr.maxlong = 80
_short = _repr.repr


def _shown(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    text = ", ".join([*(_short(a) for a in args), *(f"{k}={_short(v)}" for k, v in kwargs.items())])
    return text if len(text) <= 200 else text[:200] + "..."


def microseconds(value: float | timedelta | None) -> int | None:
    """Convert an optional span to microseconds. Raises InvalidTime for one that can't be."""
    return None if value is None else seconds_to_us(value)


def checked_name(name: str, value: object) -> str:
    """Return ``value`` where it can name a queue, key or group; raise InvalidJob otherwise."""
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_NAME or _UNPRINTABLE.search(value):
        raise InvalidJob(f"{name} is a text of 1 to {MAX_NAME} printable characters, not {value!r}.")
    return value


def checked_whole(name: str, value: object, low: int, high: int) -> int:
    """Return ``value`` where it is a whole number from ``low`` to ``high``; raise InvalidJob otherwise."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidJob(f"{name} is a whole number from {low:,} to {high:,}, not {value!r}.")
    return value


def provided_type(function: Callable[[], Any]) -> type:
    """Return the type that a generator under ``@app.provide`` yields. Raises ConfigError for what is no such one."""
    made = typing.get_args(typing.get_type_hints(function).get("return"))
    if not made or not (inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function)):
        raise ConfigError(
            f"@app.provide takes a generator annotated AsyncIterator[Type] or Iterator[Type]; {function!r} is not."
        )
    kind: type = typing.get_origin(made[0]) or made[0]
    return kind


def as_decorator(make: Callable[[Callable[..., Any]], Task[Any, Any]]) -> TaskDecorator:
    """Give a plain maker the decorator's type."""
    return cast("TaskDecorator", make)


Overlap = Literal["skip", "queue", "allow"]
Missed = Literal["skip", "once", "all"]
