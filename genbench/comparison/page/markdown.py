"""A study as Markdown for a repository, its pictures beside it. Imports nothing heavy."""

import shutil
from pathlib import Path

from genbench.comparison.page.content import Study
from genbench.comparison.page.pictures import Gallery
from genbench.comparison.tables import render
from genbench.comparison.tradeoffs import in_words
from genbench.runs.dataset_name import plain


def write_markdown(study: Study, out: Path) -> str:
    """Lay the study out for the file `out`; its pictures go to the folder `<stem>-pictures`."""
    lines = [f"# {study.title}", "", *([study.question, ""] if study.question else [])]
    lines += [f"    {command}" for command in study.commands] + [""]
    for section in study.sections:
        lines += [f"## {section.dataset}", "", render([section.table], "md"), ""]
        lines += [f"- {verdict}" for verdict in section.verdicts] + [""]
        if section.explanation:
            lines += [render([section.explanation.table], "md"), ""]
            lines += [f"- {words}" for words in section.explanation.sentences] + [""]
        lines += [f"- {one.title}. {in_words(one)}" for one in section.tradeoffs] + [""]
        failing = section.failures.galleries if section.failures else []
        for gallery in [*section.galleries, *failing]:
            lines += _gallery(gallery, section.dataset, out)
        lines += [render([section.costs], "md"), ""]
        if section.seconds:
            lines += [render([section.seconds], "md"), ""]
        if section.failed:
            lines += [render([section.failed], "md"), ""]
    return "\n".join(lines).rstrip()


def _gallery(gallery: Gallery, dataset: str, out: Path) -> list[str]:
    folder = out.with_name(f"{out.stem}-pictures")
    folder.mkdir(parents=True, exist_ok=True)
    heads, cells, notes = [], [], []
    for place, picture in enumerate(gallery.pictures):
        name = f"{plain(dataset)}-{gallery.kind}-{place}.png"
        shutil.copyfile(picture.path, folder / name)
        heads.append(picture.label.replace("|", "\\|"))
        ends = f"{picture.texts[0]} to {picture.texts[-1]}" if picture.texts else ""
        notes.append("; ".join(filter(None, (picture.note, ends))))
        cells.append(
            f"![{gallery.kind} of {picture.label}]({folder.name}/{name})".replace("|", "\\|")
        )
    rule = "|" + ":---:|" * len(heads)
    rows = [heads, cells, *([notes] if any(notes) else [])]
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return [gallery.caption, "", head, rule, *body, ""]
