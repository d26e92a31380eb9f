"""Tables in Markdown, padded so that they read well in a terminal too."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The lines of a table, joined by line breaks. Every row has as many cells as the head."""
    widths = [max(3, *(len(cell) for cell in column)) for column in zip(head, *rows, strict=True)]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in (head, *rows)]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a title, a blank line, the table and a blank line."""
    print(f"{title}\n\n{markdown_table(head, rows)}\n", flush=True)
