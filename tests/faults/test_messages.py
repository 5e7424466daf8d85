"""docs/errors.md tells of every message, with a cause and a cure."""

import messages


def test_every_message_is_on_the_page():
    """`python tests/faults/messages.py` writes it."""
    every = messages.grouped()
    assert every.pop("") == [], "give these a group in tests/faults/messages.py"
    text = messages.PAGE.read_text(encoding="utf-8")
    lost = [m for group in every.values() for m in group if f"`{_shown(m.text)}`" not in text]
    assert lost == [], "run python tests/faults/messages.py"
    for title, group in every.items():
        assert not group or f"## {title}\n" in text


def test_the_page_tells_of_no_message_that_is_gone():
    text = messages.PAGE.read_text(encoding="utf-8")
    now = {_shown(message.text) for message in messages.messages()}
    then = {line[3:-1] for line in text.splitlines() if line.startswith("- `")}
    assert then <= now
    assert len(now) > 400


def _shown(text: str) -> str:
    return text.replace("`", "'")
