"""What mkdocs adds to the pages in this folder: a page per row, and the source files that pages link to.

A row's page is made of the row itself: its file's docstring (what is minimised, in the paper's letters, and
where it departs), its pictures, its published numbers, the command, the config, the code.
"""

import ast
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

DOCS = Path(__file__).parent
ROOT = DOCS.parent
OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)(#[^)]*)?\)")  # links from a page to a file beside docs/
FLOORS = {
    "noise",
    "replay",
    "blur",
    "mode-drop",
    "invent",
}  # known answers: docs/metrics.md has them


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every row into the navigation, below the page on all of them."""
    for section in config.nav or []:
        if "Models" in section:
            section["Models"].insert(1, {"Every row": [f"rows/{name}.md" for name in rows()]})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page per row of `configs/model`, and a page per source file that some page links to."""
    for name in rows():
        files.append(File.generated(config, f"rows/{name}.md", content=row(name)))
    for path in sorted({path for page in DOCS.glob("*.md") for path in linked(page.read_text())}):
        files.append(File.generated(config, source_page(path), content=source(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Let links to files beside docs/ lead to their pages here."""
    if page.file.generated_by:
        return markdown
    here = posixpath.dirname(page.file.src_uri)
    return OUTSIDE.sub(
        lambda m: f"]({posixpath.relpath(source_page(m[1]), here or '.')})", markdown
    )


def rows() -> list[str]:
    """The models that have a page, by name."""
    return sorted(
        p.stem for p in (ROOT / "configs" / "model").glob("*.yaml") if p.stem not in FLOORS
    )


def linked(text: str) -> Iterator[str]:
    """Paths from the root of the project that a page links to."""
    return (found[1].rstrip("/") for found in OUTSIDE.finditer(text))


def source_page(path: str) -> str:
    """The page here of a file or a folder of the project."""
    return f"source/{path.rstrip('/')}.md"


def source(path: str) -> str:
    """A file as it is; of a folder the names."""
    place = ROOT / path
    if place.is_dir():
        lines = [f"- `{p.name}`" for p in sorted(place.iterdir()) if not p.name.startswith(".")]
        return f"# {path}\n\n" + "\n".join(lines)
    language = {".py": "python", ".yaml": "yaml", ".md": "markdown"}.get(place.suffix, "text")
    return f"# {path}\n\n" + fenced(place.read_text(), language)


def row(name: str) -> str:
    """Everything about one row, from its own files."""
    config = (ROOT / "configs" / "model" / f"{name}.yaml").read_text()
    module = ROOT / (target(name).rsplit(".", 1)[0].replace(".", "/") + ".py")
    code = module.read_text()
    summary = re.match(r"#\s*(.*)", config)
    parts = [f"# `model={name}`", summary[1] if summary else "", described(code), pictures(name)]
    parts += ["## Command", fenced(f"genbench train model={name}\ngenbench show latest\n", "sh")]
    parts += [published(name), "## Config", fenced(config, "yaml")]
    parts += [f"## Code: `{module.relative_to(ROOT)}`", fenced(code, "python")]
    parts += ["Other rows, and what was measured of all of them: [rows](../rows.md)."]
    return "\n\n".join(part for part in parts if part)


def target(name: str) -> str:
    """The class that a model's config names, its own or that of the config that it extends."""
    content = yaml.safe_load((ROOT / "configs" / "model" / f"{name}.yaml").read_text())
    if "_target_" in content:
        return str(content["_target_"])
    bases = [base for base in content["defaults"] if isinstance(base, str) and base != "_self_"]
    return target(bases[0])


def described(code: str) -> str:
    """The docstring of a module; its indented lines are formulas, and addresses are links."""
    text = ast.get_docstring(ast.parse(code)) or ""
    return re.sub(r"(?<![<(])(https?://[^\s,;)]+[^\s,;).:])", r"<\1>", text)


def pictures(name: str) -> str:
    """Curve and grids of a run on the digits, where they were made."""
    titles = {"curve": "FD over images", "samples": "Samples, and reconstructions"}
    found = [
        f"![{title}](../pictures/rows/{name}-{kind}.png)"
        for kind, title in titles.items()
        if (DOCS / "pictures" / "rows" / f"{name}-{kind}.png").exists()
    ]
    return "\n\n".join(["## On the digits", *found]) if found else ""


def published(name: str) -> str:
    """What others have published of it, and what was measured here."""
    lines = []
    for path in sorted((ROOT / "reproduce").glob("*.yaml")):
        claim = yaml.safe_load(path.read_text())
        if f"model={name}" not in claim["train"]:
            continue
        seen = [f"{m['value']:.5g} ({m['machine']})" for m in claim.get("measured") or ()]
        value = claim["published"]["value"]
        lines.append(
            f"| {claim['title']} | {value} | {claim['band']} | {'; '.join(seen) or 'not run here'} |"
        )
    if not lines:
        return ""
    head = [
        "## Published and measured",
        "",
        "| what | published | band | measured |",
        "|---|---|---|---|",
    ]
    return "\n".join([*head, *lines, "", "[How these are run](../reproduce.md)."])


def fenced(text: str, language: str) -> str:
    """A block of code."""
    return f"```{language}\n{text.rstrip()}\n```"
