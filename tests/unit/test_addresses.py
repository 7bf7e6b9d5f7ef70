"""What messages say of addresses."""

from __future__ import annotations

import pytest

from recaption.run.addresses import without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:hush@h.org/a.tar: no answer", "https://h.org/a.tar: no answer"),
        ("url='https://me:hush@h.org/a.tar?sig=hush'", "url='https://h.org/a.tar?…'"),
        ("https://h.org/a.tar?sig=hush is gone", "https://h.org/a.tar?… is gone"),
        ("hf://datasets/me/set@main/a.tar", "hf://datasets/me/set@main/a.tar"),
    ],
)
def test_a_message_has_no_secret_of_a_url(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
