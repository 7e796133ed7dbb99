"""A study as Markdown for a repository, its pictures beside it. Imports nothing heavy."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from genbench.comparison.page.charts import draw_panels
from genbench.comparison.page.content import NO_CURVES, Section, Study
from genbench.comparison.page.pictures import Gallery
from genbench.comparison.page.styles import Style, of_losses, of_methods
from genbench.comparison.tables import render
from genbench.comparison.tradeoffs import in_words
from genbench.runs.dataset_name import plain


def write_markdown(study: Study, out: Path) -> str:
    """Lay the study out for the file `out`; its pictures go to the folder `<stem>-pictures`."""
    lines = [f"# {study.title}", "", *([study.question, ""] if study.question else [])]
    lines += [f"    {command}" for command in study.commands] + [""]
    styles = of_methods(sorted({label for part in study.sections for label in part.labels}))
    for section in study.sections:
        lines += [f"## {section.dataset}", "", render([section.table], "md"), ""]
        lines += [f"- {verdict}" for verdict in section.verdicts] + [""]
        if section.explanation:
            lines += [render([section.explanation.table], "md"), ""]
            lines += [f"- {words}" for words in section.explanation.sentences] + [""]
        lines += [f"- {one.title}. {in_words(one)}" for one in section.tradeoffs] + [""]
        lines += _curves(section, styles, out)
        failing = section.failures.galleries if section.failures else []
        galleries = [*section.galleries, *failing]
        for place, gallery in enumerate(galleries):
            before = [one for one in galleries[:place] if one.kind == gallery.kind]
            first = sum(len(one.pictures) for one in before)  # two may be of samples
            lines += _gallery(gallery, section.dataset, out, first)
        lines += [render([section.costs], "md"), ""]
        if section.seconds:
            lines += [render([section.seconds], "md"), ""]
        if section.failed:
            lines += [render([section.failed], "md"), ""]
    return "\n".join(lines).rstrip()


def _curves(section: Section, styles: Mapping[str, Style], out: Path) -> list[str]:
    """Scores over images in one picture, and the losses of each method in one of its own."""
    folder = out.with_name(f"{out.stem}-pictures")
    lines = ["Scores over images, means over seeds, bands from the lowest to the highest.", ""]
    name = f"{plain(section.dataset)}-curves.png"
    if section.scores:
        draw_panels(section.scores, styles, folder / name)
        lines += [f"![scores over images]({folder.name}/{name})", ""]
    else:
        lines = [NO_CURVES, ""]
    told = {gap: None for panel in section.scores for gap in panel.gaps}
    lines += [f"Not in the curves: {'; '.join(told)}.", ""] if told else []
    for place, (label, panels) in enumerate(section.losses.items()):
        if not panels:
            continue
        own = of_losses(sorted({curve.label for panel in panels for curve in panel.curves}))
        name = f"{plain(section.dataset)}-losses-{place}.png"
        draw_panels(panels, own, folder / name)
        lines += [f"![losses of {label}]({folder.name}/{name})", ""]
    return lines


def _gallery(gallery: Gallery, dataset: str, out: Path, first: int) -> list[str]:
    """A table of pictures, whose files are numbered from `first` on."""
    folder = out.with_name(f"{out.stem}-pictures")
    folder.mkdir(parents=True, exist_ok=True)
    heads, cells, notes = [], [], []
    for place, picture in enumerate(gallery.pictures, first):
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
