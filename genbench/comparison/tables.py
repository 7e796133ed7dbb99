"""One table in any format. Imports nothing heavy: rich only to print on a terminal.

A table is exact (full values, for csv and json) and readable (rounded, for people) at once.
"""

import csv
import html
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FORMATS = ("table", "md", "csv", "tex", "json", "html")


@dataclass(frozen=True)
class Column:
    """What a column holds: `key` names it exactly, `header` for people."""

    key: str
    header: str
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """What people read, and the exact values behind it; an empty text is a blank.

    A `strong` one is set in bold, or has a star where there is no bold.
    """

    text: str = ""
    exact: Mapping[str, Any] = field(default_factory=dict)
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns, a title above and notes below."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()


def number(value: float | None, digits: int = 4) -> str:
    """Round for people: 4 significant digits, thousands set apart; blank for None."""
    if value is None:
        return ""
    if value == int(value) and abs(value) >= 1000:
        return f"{int(value):,}"
    magnitude = f"{value:.{digits}g}"
    if "e" in magnitude:
        return f"{value:,.0f}" if abs(value) >= 1 else magnitude
    return magnitude


def render(tables: Sequence[Table], form: str) -> str:
    """Write tables as `table, md, csv, tex, json` or `html`."""
    if form == "json":
        return json.dumps([_json(table) for table in tables], indent=1, ensure_ascii=False)
    if form == "csv":
        return _csv(tables)
    writers = {"table": _terminal, "md": _markdown, "tex": _latex, "html": _html}
    return "\n\n".join(writers[form](table) for table in tables)


def _json(table: Table) -> dict[str, Any]:
    rows = [
        {
            column.key: dict(cell.exact) or None
            for column, cell in zip(table.columns, row, strict=True)
        }
        for row in table.rows
    ]
    return {"title": table.title, "rows": rows, "notes": list(table.notes)}


def _csv(tables: Sequence[Table]) -> str:
    """One line per row; a score takes columns for mean, sd and n."""
    lines: list[dict[str, Any]] = []
    for table in tables:
        for row in table.rows:
            line: dict[str, Any] = {"table": table.title} if table.title else {}
            for column, cell in zip(table.columns, row, strict=True):
                if "mean" in cell.exact:
                    line |= {
                        column.key: cell.exact["mean"],
                        f"{column.key} sd": cell.exact["sd"],
                        f"{column.key} n": cell.exact["n"],
                    }
                else:
                    line[column.key] = next(iter(cell.exact.values()), "")
            lines.append(line)
    columns = list(dict.fromkeys(key for line in lines for key in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue().rstrip("\n")


def _terminal(table: Table) -> str:
    import shutil

    from rich.console import Console
    from rich.table import Table as RichTable

    width = max(80, shutil.get_terminal_size((100, 24)).columns)
    console = Console(file=io.StringIO(), width=width, highlight=False, force_terminal=False)
    grid = RichTable(title=table.title, title_justify="left", title_style="bold", box=None)
    for place, column in enumerate(table.columns):
        grid.add_column(
            column.header,
            justify="right" if column.numeric else "left",
            overflow="fold",
            min_width=14 if place == 0 else _longest_word(table, place),
        )
    for row in table.rows:
        grid.add_row(*[_starred(cell) for cell in row])
    with console.capture() as capture:
        console.print(grid, markup=False)
        for note in table.notes:
            console.print(note, markup=False, soft_wrap=True)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def _starred(cell: Cell) -> str:
    return f"{cell.text} *" if cell.strong else cell.text


def _longest_word(table: Table, place: int) -> int:
    texts = [table.columns[place].header, *(_starred(row[place]) for row in table.rows)]
    return max((len(word) for text in texts for word in text.split()), default=0)


def _markdown(table: Table) -> str:
    def line(texts: Iterable[str]) -> str:
        return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"

    def written(cell: Cell) -> str:
        return f"**{cell.text}**" if cell.strong else cell.text

    marks = ["---:" if column.numeric else ":---" for column in table.columns]
    lines = [
        f"**{table.title}**",
        "",
        line([column.header for column in table.columns]),
        line(marks),
        *(line(written(cell) for cell in row) for row in table.rows),
    ]
    return "\n".join(lines + ["", *(f"{note}  " for note in table.notes)]).rstrip()


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "·": r"$\cdot$",
}


def _tex(text: str) -> str:
    """Escape; a sign before a number is a minus, not a hyphen."""
    signed = re.split(r"((?<![\w.])-(?=\d))", text)
    return "".join(
        "$-$" if place % 2 else "".join(_TEX.get(letter, letter) for letter in part)
        for place, part in enumerate(signed)
    )


def _latex(table: Table) -> str:
    def line(texts: Iterable[str]) -> str:
        return " & ".join(texts) + r" \\"

    def written(cell: Cell) -> str:
        return rf"\textbf{{{_tex(cell.text)}}}" if cell.strong else _tex(cell.text)

    alignment = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        "% needs \\usepackage{booktabs}",
        f"% {table.title}",
        rf"\begin{{tabular}}{{{alignment}}}",
        r"\toprule",
        line(_tex(column.header) for column in table.columns),
        r"\midrule",
        *(line(written(cell) for cell in row) for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(f"% {note}" for note in table.notes),
    ]
    return "\n".join(lines)


def _html(table: Table) -> str:
    def line(texts: Iterable[str], tag: str) -> str:
        cells = "".join(
            f"<{tag}{'' if column.numeric else ' class=text'}>{text}</{tag}>"
            for column, text in zip(table.columns, texts, strict=True)
        )
        return f"<tr>{cells}</tr>"

    def written(cell: Cell) -> str:
        text = html.escape(cell.text)
        return f"<strong>{text}</strong>" if cell.strong else text

    rows = "\n".join(line((written(cell) for cell in row), "td") for row in table.rows)
    head = line((html.escape(column.header) for column in table.columns), "th")
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in table.notes)
    return (
        f"<figure><figcaption>{html.escape(table.title)}</figcaption>\n<table>\n<thead>"
        f"{head}</thead>\n<tbody>\n{rows}\n"
        f"</tbody>\n</table>\n{notes}</figure>"
    )
