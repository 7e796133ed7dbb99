"""Sentences for the user."""

import warnings

from genbench.errors import Notice, notices_to


def test_a_notice_is_a_sentence_for_the_user_and_other_warnings_go_their_usual_way():
    notices = []
    with warnings.catch_warnings(record=True) as usual:
        warnings.simplefilter("always")
        with notices_to(notices.append):
            warnings.warn("the server is slow", Notice, stacklevel=1)
            warnings.warn("an old name", UserWarning, stacklevel=1)
        warnings.warn("too late", Notice, stacklevel=1)
    assert notices == ["the server is slow"]
    assert [str(w.message) for w in usual] == ["an old name", "too late"]
