"""What goes to and comes from the Telegram Bot API, without the network.

Facts by Telegram's own pages: core.telegram.org/bots/api ("the manual") and core.telegram.org/bots/faq.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec

from oncue.errors import InvalidJob
from oncue.transport import Address, Answer, Batch, Choices, Content, Inbound, Option, Template, Text, Verdict

TEXT_LENGTH = 4096
"""sendMessage: "1-4096 characters after entities parsing". Counted as the manual counts entities: in UTF-16 units."""
CALLBACK_BYTES = 64
"""InlineKeyboardButton.callback_data: "1-64 bytes"."""
BUTTONS = 100
"""Buttons of one inline keyboard. The manual names no figure; this one is observed (github.com/tginfo/Telegram-Limits,
issue 228; the server answers more with 400 "reply markup is too long")."""
UPDATES = ("message", "edited_message", "callback_query", "my_chat_member")
"""The kinds of updates that are understood, for setWebhook's ``allowed_updates``."""

# Message fields that name what was sent, in the manual's order; an animation and a gift come with a second one.
_KINDS = (
    "animation", "audio", "document", "paid_media", "photo", "sticker", "story", "video", "video_note", "voice",
    "contact", "dice", "game", "poll", "venue", "location",
)  # fmt: skip
_DEEPEST = 40
_HUGE = 1 << 63
_MEMBERS = {"kicked": "blocked", "member": "unblocked"}

# Identifiers have "at most 52 significant bits" by the manual; what is beyond is no Telegram's.
_Id = Annotated[int, msgspec.Meta(ge=-(1 << 53), le=1 << 53)]
_Seconds = Annotated[int, msgspec.Meta(ge=0, le=1 << 42)]


class _Chat(msgspec.Struct):
    id: _Id
    type: str


class _User(msgspec.Struct):
    id: _Id
    first_name: str = ""
    last_name: str = ""

    @property
    def name(self) -> str | None:
        return f"{self.first_name} {self.last_name}".strip() or None


class _Pointed(msgspec.Struct):
    """A message that is only pointed at; one that is gone comes with its chat and number alone."""

    message_id: _Id
    chat: _Chat
    reply_markup: Any = None

    @property
    def external_id(self) -> str:
        return f"{self.chat.id}:{self.message_id}"


class _Message(msgspec.Struct):
    message_id: _Id
    chat: _Chat
    date: _Seconds
    sender: _User | None = msgspec.field(name="from", default=None)
    edit_date: _Seconds | None = None
    text: str | None = None
    caption: str = ""
    reply_to_message: _Pointed | None = None


class _Tap(msgspec.Struct):
    id: str
    sender: _User = msgspec.field(name="from")
    message: _Pointed | None = None
    data: str | None = None


class _Status(msgspec.Struct):
    status: str


class _Member(msgspec.Struct):
    chat: _Chat
    sender: _User = msgspec.field(name="from")
    date: _Seconds
    new_chat_member: _Status


class _Result(msgspec.Struct):
    message_id: _Id
    chat: _Chat


class _Parameters(msgspec.Struct):
    retry_after: float | None = None


class _Response(msgspec.Struct):
    ok: bool
    result: Any = None
    error_code: int | None = None
    description: str = ""
    parameters: _Parameters | None = None


def check(content: Content) -> None:
    """Raise InvalidJob for content that Telegram would refuse."""
    match content:
        case Template():
            raise InvalidJob(f"Telegram has no templates, so {content.name!r} can't be sent: use a text.")
        case Text():
            _check_text(content.body)
        case Choices():
            _check_text(content.body)
            _check_text(_with_descriptions(content))
            _check_options(content.options)


def _check_text(text: str) -> None:
    if not text.strip():
        raise InvalidJob("A message without text can't be sent.")
    try:
        length = len(text.encode("utf-16-le")) // 2
    except UnicodeEncodeError as error:
        raise InvalidJob(f"The text has half a character at place {error.start}: {error.reason}.") from None
    if length > TEXT_LENGTH:
        raise InvalidJob(f"The text has {length} characters (most emoji count as two); Telegram takes {TEXT_LENGTH}.")


def _check_options(options: Iterable[Option]) -> None:
    ids = [option.id for option in options]
    if not 1 <= len(ids) <= BUTTONS:
        raise InvalidJob(f"There are {len(ids)} options; Telegram takes 1 to {BUTTONS}.")
    if len(set(ids)) < len(ids):
        raise InvalidJob(f"Two options have the same id: {ids!r}.")
    for option in options:
        size = len(option.id.encode("utf-8", "surrogatepass"))
        if not 1 <= size <= CALLBACK_BYTES:
            raise InvalidJob(f"The id {option.id!r} has {size} bytes; Telegram takes 1 to {CALLBACK_BYTES}.")
        if not option.title.strip():
            raise InvalidJob(f"The option {option.id!r} has no title.")


def _with_descriptions(content: Choices) -> str:
    """A button has room for its title only, so that descriptions go into the text."""
    described = [f"{option.title}: {option.description}" for option in content.options if option.description]
    return "\n".join([content.body, *([""] if described else []), *described])


def message(chat: str, content: Content) -> dict[str, Any]:
    """Return the parameters of sendMessage. Plain text: no parse_mode, so that nothing in it is taken for markup.

    Raises InvalidJob as `check` does.
    """
    check(content)
    if not isinstance(content, Choices):
        assert isinstance(content, Text)
        return {"chat_id": chat, "text": content.body}
    rows = [[{"text": option.title, "callback_data": option.id}] for option in content.options]
    return {"chat_id": chat, "text": _with_descriptions(content), "reply_markup": {"inline_keyboard": rows}}


def answer(status: int, raw: bytes) -> Answer:
    """Return what the answer to a sendMessage means. ``status`` counts only where the body says nothing.

    By the manual an error has ``error_code``, a ``description`` and perhaps ``parameters``; a 429 has ``retry_after``
    (seconds) in them. Whether a 429 is about the bot or about one chat isn't told; the whole channel waits.
    """
    try:
        response = msgspec.json.decode(raw, type=_Response)
    except (ValueError, RecursionError):
        return _unreadable(status)
    if response.ok:
        return _accepted(response.result)
    code = response.error_code or status
    return _refusal(code, response.description, response.parameters or _Parameters())


def _accepted(result: Any) -> Answer:
    try:
        sent = msgspec.convert(result, _Result)
    except msgspec.ValidationError as error:
        return Answer("unknown", reason=f"Telegram says that it was sent, but not as what: {error}")
    return Answer("sent", f"{sent.chat.id}:{sent.message_id}")


def _refusal(code: int, reason: str, parameters: _Parameters) -> Answer:
    match code:
        case 400 if "chat not found" in reason.lower():
            return Answer("stop_person", code=code, reason=f"{reason} (has this person ever written to the bot?)")
        case 400 | 413:
            return Answer("refused", code=code, reason=reason)
        case 401:
            return Answer("stop_channel", code=code, reason=f"{reason}: is the token right?")
        case 404:
            return Answer("stop_channel", code=code, reason=f"{reason}: are the URL and the token right?")
        case 421:
            return Answer("stop_channel", code=code, reason=reason)
        case 403:
            return Answer("stop_person", code=code, reason=reason)
        case 429:
            return Answer("wait_channel", code=code, reason=reason, after=parameters.retry_after)
        case _:
            return Answer("unknown", code=code, reason=reason)


def _unreadable(status: int) -> Answer:
    """Not the words of Telegram: a proxy spoke, perhaps for it. A page that isn't there tells of a wrong URL."""
    if status == 404:
        return Answer("stop_channel", code=status, reason=f"HTTP {status} that is not from Telegram: is the URL right?")
    verdict: Verdict = "wait_channel" if status == 429 else "unknown"
    return Answer(verdict, code=status, reason=f"HTTP {status} that can't be read")


def read(raw: bytes) -> Batch:
    """Read an update. Never raises; what can't be read is told in ``unread``.

    Telegram sends one update a request, of one person, in which "at most one of the optional parameters can be
    present"; should there be more, each is read for itself.
    """
    batch = Batch()
    try:
        update = _decode(raw)
    except (ValueError, RecursionError) as error:
        batch.unread.append(f"no JSON: {error}")
        return batch
    if not isinstance(update, dict):
        batch.unread.append(f"no update, but {type(update).__name__}")
        return batch
    number = update.get("update_id")
    for kind, item in update.items():
        if kind != "update_id":
            _read_item(kind, item, number, batch)
    return batch


def _decode(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (ValueError, RecursionError):
        # Half a character, escaped, is JSON by its grammar and spoils one item only.
        return json.loads(raw.decode("utf-8", "replace"))


def _read_item(kind: str, item: Any, number: Any, batch: Batch) -> None:
    if kind not in UPDATES:
        batch.unread.append(f"{_plain(kind)[:80]}: not a kind of update that conversations need")
        return
    try:
        inbound = _READERS[kind](_plain(item), number)
    except (ValueError, RecursionError) as error:
        batch.unread.append(f"{kind}: {error}")
    else:
        batch.inbound.append(inbound)


def _read_message(item: Any, _number: Any) -> Inbound:
    told = msgspec.convert(item, _Message)
    return _of_message(told, item, _kind_of(told, item), f"{told.chat.id}:{told.message_id}", told.date)


def _read_edit(item: Any, number: Any) -> Inbound:
    told = msgspec.convert(item, _Message)
    external_id = f"{told.chat.id}:{told.message_id}:edit:{_number(number)}"
    return _of_message(told, item, "edited", external_id, told.edit_date or told.date)


def _of_message(told: _Message, item: Any, kind: str, external_id: str, seconds: int) -> Inbound:
    return Inbound(
        external_id,
        _private(told.chat),
        seconds * 1_000_000,
        kind,
        text=told.caption if told.text is None else _written(told.text),
        replies_to=told.reply_to_message.external_id if told.reply_to_message else None,
        name=told.sender.name if told.sender else None,
        raw=item,
    )


def _written(text: str) -> str:
    """Return a text, and of the button that starts a bot its command alone.

    A link such as ``t.me/bot?start=spring`` has the person send "/start spring" (core.telegram.org/bots/features,
    "Deep Linking"): its word is in ``raw``, and it starts the conversation all the same.
    """
    command = text.partition(" ")[0].partition("@")[0]
    return command if command == "/start" else text


def _kind_of(told: _Message, item: Mapping[str, Any]) -> str:
    if told.text is not None:
        return "text"
    return next((kind for kind in _KINDS if kind in item), "unsupported")


def _read_tap(item: Any, _number: Any) -> Inbound:
    tap = msgspec.convert(item, _Tap)
    if tap.message is None or tap.data is None:
        raise ValueError("a button that is none of ours")
    return Inbound(
        f"{tap.message.chat.id}:tap:{tap.id}",
        _private(tap.message.chat),
        # A tap comes without a time. It is live: Telegram keeps it for a day at most, and shows the person a wait.
        time.time_ns() // 1000,
        "choice",
        text=_title(tap.message.reply_markup, tap.data),
        choice=tap.data,
        replies_to=tap.message.external_id,
        name=tap.sender.name,
        raw=item,
    )


def _title(markup: Any, data: str) -> str:
    """What stands on the button; nothing where the message is too old to come along."""
    try:
        keyboard = msgspec.convert(markup, dict[str, list[list[dict[str, Any]]]])
    except msgspec.ValidationError:
        return ""
    buttons = (button for row in keyboard.get("inline_keyboard", []) for button in row)
    titles = (button.get("text") for button in buttons if button.get("callback_data") == data)
    return next((title for title in titles if isinstance(title, str)), "")


def _read_member(item: Any, number: Any) -> Inbound:
    """Blocking and unblocking: "for private chats, received only when the bot is blocked or unblocked"."""
    told = msgspec.convert(item, _Member)
    return Inbound(
        f"{told.chat.id}:member:{_number(number)}",
        _private(told.chat),
        told.date * 1_000_000,
        _MEMBERS.get(told.new_chat_member.status, "unsupported"),
        name=told.sender.name,
        raw=item,
    )


_READERS = {
    "message": _read_message,
    "edited_message": _read_edit,
    "callback_query": _read_tap,
    "my_chat_member": _read_member,
}


def _plain(value: Any, depth: int = 0) -> Any:
    """Return JSON that every writer of JSON and every database takes: without NUL, half characters, huge numbers."""
    if depth > _DEEPEST:
        raise ValueError(f"nested more than {_DEEPEST} levels deep")
    match value:
        case str():
            return value.replace("\0", "\ufffd").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {_plain(name): _plain(each, depth + 1) for name, each in value.items()}
        case list():
            return [_plain(each, depth + 1) for each in value]
        case bool() | None:
            return value
        case _:
            return value if -_HUGE < value < _HUGE else str(value)


def _private(chat: _Chat) -> Address:
    if chat.type != "private":
        raise ValueError(f"a {chat.type}; conversations are held in private chats only")
    return Address(str(chat.id))


def _number(number: Any) -> int:
    """The update's own number; it parts two edits of one message, or two blocks, in the same second."""
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError("no update_id")  # noqa: TRY004 - what a message says, not what code does
    return number


def tapped(raw: bytes) -> str | None:
    """Return the id of the tap that an update tells of, which answerCallbackQuery wants; None: no tap."""
    try:
        update = msgspec.convert(_decode(raw), dict[str, Any])
        return msgspec.convert(_plain(update.get("callback_query")), _Tap).id
    except (ValueError, RecursionError):
        return None
