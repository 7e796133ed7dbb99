"""`genbench new`: a model of one's own, to begin with: file, config, gradient test and package."""

import argparse
import keyword
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from genbench.errors import DONE, UserMistake
from genbench.launch.mistakes import explained
from genbench.launch.settings import Settings
from genbench.runs.files import explain_os_error

TEMPLATES = Path(__file__).with_name("templates")
FILES = {  # template: where it goes; my_model and my-model stand for the name
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "model.py": "my_model/model.py",
    "config.yaml": "my_model/configs/model/my-model.yaml",
    "test.py": "tests/test_my_model.py",
}


def main(argv: Sequence[str]) -> int:
    """Write the files of a new model; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="genbench new",
        description="Write a small installable package with a model that trains: its file, its config, a "
        "test of its gradients and a pyproject.toml with the entry point by which genbench finds it.",
        epilog="example: genbench new model my-model, then pip install -e my-model, "
        "genbench check-model my-model, genbench train model=my-model",
    )
    parser.add_argument("kind", choices=("model",))
    parser.add_argument("name", help="letters, digits and dashes: my-model")
    parser.add_argument("--out", type=Path, help="the folder to make (default: ./NAME)")
    options = parser.parse_args(list(argv))
    words = _words(options.name)
    folder = options.out or Path("-".join(words))
    for path in write(folder, words):
        print(path)
    name = "-".join(words)
    print(f"now: pip install -e {folder} && genbench check-model {name}")
    return DONE


def _words(name: str) -> list[str]:
    """The lower-case words of a model's name. UserMistake for what is no name, or taken."""
    words = [word for word in re.split(r"[-_]", name) if word]
    module = "_".join(words)
    if not re.fullmatch(r"[a-z][a-z0-9]*([-_][a-z0-9]+)*", name) or keyword.iskeyword(module):
        raise UserMistake(
            f"{name} is no name for a model: use lower-case letters, digits and dashes, as in my-model"
        )
    with explained([]):
        taken = Settings([]).groups["model"]
    if "-".join(words) in taken:
        raise UserMistake(f"there is a model {'-'.join(words)}: choose another name")
    if module in ("genbench", "torch", "hydra"):
        raise UserMistake(f"{name} would hide the package {module}: choose another name")
    return words


def write(folder: Path, words: Sequence[str]) -> list[Path]:
    """Write the templates with the name of the model into a new folder; the files. UserMistake."""
    names = {
        "my_model": "_".join(words),
        "my-model": "-".join(words),
        "MyModel": "".join(word.capitalize() for word in words),
    }
    written = []
    try:
        folder.mkdir(parents=True)
        for template, place in FILES.items():
            path = folder / _named(place, names)
            path.parent.mkdir(parents=True, exist_ok=True)
            text = (TEMPLATES / f"{template}.txt").read_text(encoding="utf-8")
            path.write_text(_named(text, names), encoding="utf-8")
            written.append(path)
        package = folder / names["my_model"] / "__init__.py"
        package.write_text(f'"""{names["MyModel"]} for genbench."""\n', encoding="utf-8")
    except FileExistsError:
        raise UserMistake(
            f"{folder} exists, and nothing is overwritten: choose another folder with --out"
        ) from None
    except OSError as error:
        raise UserMistake(f"cannot write {folder}: {explain_os_error(error)}") from None
    return [*written, package]


def _named(text: str, names: Mapping[str, str]) -> str:
    return re.sub("my_model|my-model|MyModel", lambda found: names[found[0]], text)
