"""Words by which people leave and come back, in several languages: compared whole, without case, accents or marks."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

OPT_OUT: Mapping[str, tuple[str, ...]] = {
    "ar": ("توقف", "إلغاء الاشتراك"),
    "de": ("stopp", "abmelden", "abbestellen"),
    "en": ("stop", "stop all", "stopall", "stop promotions", "unsubscribe", "opt out", "optout"),
    "es": ("alto", "baja", "darse de baja", "cancelar suscripción"),
    "fr": ("arrêt", "arrêter", "arrêtez", "désabonner", "se désabonner", "désinscription"),
    "he": ("הסר", "עצור"),
    "hi": ("रोकें", "बंद करें"),
    "id": ("berhenti", "berhenti langganan"),
    "it": ("ferma", "annulla iscrizione", "disiscrivimi"),
    "ja": ("停止", "配信停止"),
    "ko": ("수신거부", "중지"),
    "nl": ("afmelden", "uitschrijven"),
    "pl": ("wypisz", "wypisz mnie", "rezygnuję"),
    "pt": ("parar", "pare", "sair", "cancelar inscrição", "descadastrar"),
    "ru": ("стоп", "отписаться"),
    "tr": ("dur", "abonelikten çık"),  # noqa: RUF001
    "uk": ("відписатися",),
    "zh": ("退订", "停止"),
}
"""What means "send me nothing more", by language."""

OPT_IN: Mapping[str, tuple[str, ...]] = {
    "ar": ("اشتراك",),
    "de": ("anmelden",),
    "en": ("start", "unstop", "subscribe", "opt in", "optin"),
    "es": ("alta", "suscribirse"),
    "fr": ("s'abonner",),
    "id": ("mulai", "berlangganan"),
    "it": ("iscrivimi",),
    "ko": ("수신동의",),
    "nl": ("aanmelden",),
    "pl": ("zapisz mnie",),
    "pt": ("inscrever", "voltar"),
    "ru": ("старт", "подписаться"),
    "tr": ("başla",),
    "uk": ("підписатися",),
    "zh": ("订阅",),
}
"""What takes that back, by language."""

# Longer than any word of the lists, with marks and spaces around it to spare.
_LONGEST = 200
# Letters that decompose into nothing simpler, as they are typed by those whose keyboard lacks them.
_ALIKE = str.maketrans({"ı": "i", "ł": "l", "ø": "o", "đ": "d", "’": "'"})  # noqa: RUF001


def fold(text: str) -> str:
    """Return a text as it is compared: without case, accents, dashes, doubled spaces, and marks or emoji around it.

    "  «STOPP!» " and "stopp" are the same. A text of marks alone is left empty; so is one that is too long to be a
    word of a list.
    """
    text = text.strip()
    if len(text) > _LONGEST:
        return ""
    letters = unicodedata.normalize("NFKD", text.casefold()).translate(_ALIKE)
    # Casefolded once more: compatibility forms (such as full-width letters) have no case of their own before.
    plain = "".join(_seen(letter) for letter in letters.casefold() if not _is_mark(letter))
    first, last = 0, len(plain)
    while first < last and not plain[first].isalnum():
        first += 1
    while last > first and not plain[last - 1].isalnum():
        last -= 1
    # Vowel signs of Indian scripts follow their letter and are no letters themselves.
    while last < len(plain) and unicodedata.category(plain[last]).startswith("M"):
        last += 1
    return " ".join(plain[first:last].split())


def _seen(letter: str) -> str:
    """Return a letter as it is compared: some write "opt-out", with one of many dashes, and some "opt out"."""
    return " " if unicodedata.category(letter) == "Pd" else letter


def _is_mark(letter: str) -> bool:
    """Tell whether this is an accent, or something that isn't seen, such as a joiner or a variation selector."""
    return unicodedata.combining(letter) != 0 or unicodedata.category(letter) == "Cf" or "\ufe00" <= letter <= "\ufe0f"


def folded(words: Iterable[str]) -> frozenset[str]:
    """Return words as they are compared; those of which nothing is left are left out."""
    return frozenset(fold(word) for word in words) - {""}


def words_of(lists: Mapping[str, tuple[str, ...]], languages: Iterable[str] | None = None) -> tuple[str, ...]:
    """Return the words of some languages (None: of all) of ``OPT_OUT`` or ``OPT_IN``. Raises KeyError for others."""
    chosen = lists if languages is None else languages
    return tuple(word for language in chosen for word in lists[language])


def is_one_of(text: str, words: frozenset[str]) -> bool:
    """Tell whether the whole text is one of these folded words."""
    plain = fold(text)
    return plain != "" and plain in words
