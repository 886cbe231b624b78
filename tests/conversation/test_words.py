"""Words are compared whole, without case, accents and marks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oncue.conversation.words import OPT_IN, OPT_OUT, fold, folded, is_one_of, words_of

OUT = folded(words_of(OPT_OUT))


@pytest.mark.parametrize(
    "text",
    ["stop", "STOP", "  Stop!! ", "«stop»", "\uff33\uff34\uff2f\uff30", "sto\u0301p", "🛑 stop 🛑", "\u200bstop\ufe0f",
     "Stop  All", "arret", "ARRÊT.", "СТОП", "Baja", "REZYGNUJE", "abonelikten cik", "रोकें", "إلغاء الاشتراك", "停止。",
     "opt-out", "Opt\u2011Out", "Stop promotions", "stop" + 300 * " ", 300 * "\n" + "STOP"],
)  # fmt: skip
def test_such_a_text_is_a_word_by_which_people_leave(text: str) -> None:
    assert is_one_of(text, OUT)


@pytest.mark.parametrize(
    "text", ["", "!!!", "don't stop", "stop it please", "stopping", "bus stop", "s top", "stop" * 60]
)
def test_such_a_text_is_none(text: str) -> None:
    assert not is_one_of(text, OUT)


def test_no_word_means_both() -> None:
    assert not OUT & folded(words_of(OPT_IN))


def test_words_of_some_languages_only() -> None:
    assert "stopp" in words_of(OPT_OUT, ["de"])
    assert "stop" not in words_of(OPT_OUT, ["de"])
    with pytest.raises(KeyError):
        words_of(OPT_OUT, ["xx"])


@pytest.mark.parametrize("word", words_of(OPT_OUT) + words_of(OPT_IN))
def test_every_word_of_the_lists_can_be_written(word: str) -> None:
    assert fold(word)
    assert fold(word.upper()) == fold(word)


@given(st.text())
def test_folding_twice_changes_nothing(text: str) -> None:
    assert fold(fold(text)) == fold(text)
