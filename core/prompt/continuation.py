"""The continued prompt: whether a text is what an expander made of a main prompt."""

from __future__ import annotations


def cleaned(text: str) -> str:
    """`text` with single blanks, and without commas, full stops, blanks and line ends around it."""
    for _ in range(16):
        text = text.replace("  ", " ")
    return text.strip(",. \r\n")


def continues(text: str, prompt: str) -> bool:
    """Whether `text` is `prompt`, or begins with it and a comma. What continues another prompt would draw that one."""
    start = cleaned(prompt)
    return bool(start) and (text == start or text.startswith(f"{start},"))
