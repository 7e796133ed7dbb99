"""Sentences for the user."""

import warnings

from genbench.errors import Notice, heard


def test_a_notice_is_a_sentence_for_the_user_and_other_warnings_go_their_usual_way():
    heard_of = []
    with warnings.catch_warnings(record=True) as usual:
        warnings.simplefilter("always")
        with heard(heard_of.append):
            warnings.warn("the server is slow", Notice, stacklevel=1)
            warnings.warn("an old name", UserWarning, stacklevel=1)
        warnings.warn("too late", Notice, stacklevel=1)
    assert heard_of == ["the server is slow"]
    assert [str(w.message) for w in usual] == ["an old name", "too late"]
