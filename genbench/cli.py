"""The front door: takes the verb off the command line and opens one room. Imports nothing heavy."""

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from genbench.errors import DONE, FAILED, INTERRUPTED, MISTAKE, GenbenchError, UserMistake, heard


class Verb(NamedTuple):
    """One command: what it does in a line, its usage with examples, and the room it opens."""

    summary: str
    usage: str
    run: Callable[[list[str]], int]


def _train(argv: list[str]) -> int:
    from genbench.launch import task

    return task.train(argv)


def _resume(argv: list[str]) -> int:
    from genbench.commands import resume

    return resume.resume(argv)


def _evaluate(argv: list[str]) -> int:
    from genbench.commands import evaluate

    return evaluate.evaluate(argv)


def _sample(argv: list[str]) -> int:
    from genbench.commands import sample

    return sample.sample(argv)


def _compare(argv: list[str]) -> int:
    from genbench.commands import compare

    return compare.main(argv)


def _runs(argv: list[str]) -> int:
    from genbench.commands import runs

    if argv and argv[0] in runs.ACTIONS:
        return runs.main(argv)

    try:
        return runs.list_runs(argv)
    except UserMistake as error:
        near = difflib.get_close_matches(argv[0] if argv else "", runs.ACTIONS, n=1)
        raise (
            UserMistake(f"{error}; did you mean genbench runs {near[0]}?") if near else error
        ) from None


def _wandb(argv: list[str]) -> int:
    from genbench.commands import wandb

    return wandb.main(argv)


def _export(argv: list[str]) -> int:
    from genbench.commands import export

    return export.main(argv)


def _show(argv: list[str]) -> int:
    from genbench.commands import show

    return show.main(argv)


def _report(argv: list[str]) -> int:
    from genbench.commands import report

    return report.main(argv)


def _data(argv: list[str]) -> int:
    from genbench.commands import data

    return data.main(argv)


def _extractor(argv: list[str]) -> int:
    if argv and argv[0] == "train":
        from genbench.commands import extractor

        return extractor.train_extractor(argv[1:])
    if argv == ["list"]:
        from genbench.commands import extractor

        return extractor.list_extractors()
    raise UserMistake(
        "extractor takes a word first: genbench extractor list, or extractor train ..."
    )


def _completion(argv: list[str]) -> int:
    from genbench.commands import completion

    return completion.main(argv)


def _doctor(argv: list[str]) -> int:
    from genbench.commands import doctor

    return doctor.main(argv)


VERBS = {
    "train": Verb(
        "train one model, score it and record it; -m for several",
        """\
usage: genbench train [key=value ...] [-m]

Trains the model that the settings describe, scores its final weights and writes everything below
outputs/<run_id>/. Without settings: a small VAE on the embedded digits.

  genbench train model=gan dataset=mnist               choose from groups
  genbench train budget.images=500k seed=1             change values
  genbench train -m model=vae,gan,vae-gan seed=0,1,2   nine runs, as many at once as fit
  genbench train -m experiment=objectives              a study that ships (docs/studies.md)
  genbench train model=gan trainer=cpu study=first     name the question for `genbench compare`

  --cfg job        print the composed settings instead of training
  --info           print where they come from
  --config-dir D   also look for configs in D (always: ./genbench_configs, $GENBENCH_CONFIG_PATH)
  --help           print all groups and settings

Ctrl-C writes a checkpoint and stops; `genbench resume latest` goes on from there.
Exit code: 0 done, 1 failed or diverged, 2 a mistake in the command, 75 interrupted.""",
        _train,
    ),
    "resume": Verb(
        "continue an interrupted run",
        """\
usage: genbench resume RUN [trainer=NAME] [trainer.key=value ...]

Continues a run from its last checkpoint as if it had not stopped.
RUN is a run id, a unique prefix of one, a path, or `latest`.

  genbench resume latest
  genbench resume latest trainer=ddp trainer.devices=2
  genbench resume latest trainer.checkpoint_minutes=2 dataset.workers=8

The trainer may change, and where a dataset lies and how it is read (dataset.root, workers, cache_gb,
device_resident). The record lists every trainer. The method, budget and seed stay: for others train a
new run. Another trainer.precision makes the run one of a method of its own.""",
        _resume,
    ),
    "evaluate": Verb(
        "score runs again under another protocol",
        """\
usage: genbench evaluate RUN ... [key=value ...]

Scores the final weights of runs again. What is not given is as in the run itself. The scores are
written below the run's evaluations/, each with its card; result.json is never changed.

  genbench evaluate latest evaluation.num_samples=5000
  genbench evaluate 20260101 20260102 evaluation=full""",
        _evaluate,
    ),
    "sample": Verb(
        "draw images from a run",
        """\
usage: genbench sample RUN [--num N] [--out FILE] [--seed S] [--interpolate] [--reconstruct]

  genbench sample latest --num 64 --out grid.png
  genbench sample latest --interpolate --out path.png
  genbench sample latest --reconstruct --out pairs.png""",
        _sample,
    ),
    "compare": Verb("print the table: models in rows, seeds aggregated", "", _compare),
    "report": Verb("write a study on one page: table, curves, pictures", "", _report),
    "runs": Verb("print a line per run; --format json for scripts; tag or remove them", "", _runs),
    "export": Verb("put runs and scores into a database or a parquet file", "", _export),
    "wandb": Verb(
        "send what was logged offline; save a view of a study there",
        """\
usage: genbench wandb sync [RUN|key=value ...] [--dry-run]
       genbench wandb workspace study=NAME [--entity E] [--project P] [--out FILE]

sync sends what was logged offline, the pieces of a resumed run under one id, and leaves out what was sent.
workspace saves a view of a study: scores in groups of seeds, curves over images, pictures side by side.

  genbench wandb sync --dry-run
  genbench wandb sync study=objectives
  genbench wandb workspace study=objectives""",
        _wandb,
    ),
    "show": Verb("print one run: settings, scores with cards, cost, files", "", _show),
    "data": Verb("list, check or prepare datasets", "", _data),
    "extractor": Verb(
        "list feature networks, or train one for a dataset",
        """\
usage: genbench extractor list
       genbench extractor train --dataset NAME [key=value ...] [--epochs N] [--out FOLDER]

Distances between images are taken in the features of a fixed network. For digits and MNIST a small
classifier is shipped; for another dataset of small images train one here, once: it goes to the cache
under the hash of its weights, and that hash is part of every score's name and card.

  genbench extractor train --dataset fashion-mnist
  genbench train dataset=fashion-mnist extractor=lenet extractor.path=FILE.safetensors""",
        _extractor,
    ),
    "doctor": Verb("print what this machine has and what is missing", "", _doctor),
    "completion": Verb(
        "print a shell's completion script",
        """\
usage: genbench completion bash|zsh|fish

Completes verbs, runs, and for train every group, option and setting.

  bash:  eval "$(genbench completion bash)"        in ~/.bashrc
  zsh:   eval "$(genbench completion zsh)"         in ~/.zshrc, after compinit
  fish:  genbench completion fish | source         in ~/.config/fish/config.fish""",
        _completion,
    ),
}


HELP = """\
usage: genbench VERB ...

Train VAEs, GANs and VAE-GANs side by side and compare them under one protocol.

{verbs}

  genbench train                                       a VAE on the embedded digits
  genbench train -m model=vae,gan,vae-gan seed=0,1,2   nine runs
  genbench compare                                     the table

`genbench VERB --help` says more. GENBENCH_DEBUG=1 shows where an error comes from."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 a mistake, 75 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with heard(lambda notice: print(f"genbench: {notice}", file=sys.stderr)):
            code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # `genbench runs | head`: nobody reads on, which is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print("genbench: stopped", file=sys.stderr)
        return INTERRUPTED
    except GenbenchError as error:
        if os.environ.get("GENBENCH_DEBUG") == "1":
            raise
        print(f"genbench: {error}", file=sys.stderr)
        return error.exit_code
    except Exception as error:
        if os.environ.get("GENBENCH_DEBUG") == "1":
            raise
        print(
            f"genbench: {type(error).__name__}: {error} (a fault of genbench's own: "
            "GENBENCH_DEBUG=1 shows where)",
            file=sys.stderr,
        )
        return FAILED


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(HELP.format(verbs="\n".join(f"  {n:<12}{v.summary}" for n, v in VERBS.items())))
        return DONE if arguments else MISTAKE
    name, rest = arguments[0], arguments[1:]
    if name in ("-V", "--version"):
        from genbench import __version__

        print(f"genbench {__version__}")
        return DONE
    if name not in VERBS:
        raise UserMistake(_unknown(name))
    verb = VERBS[name]
    if verb.usage and rest and rest[0] in ("-h", "--help"):
        print(verb.usage)
        if name != "train":
            return DONE
        return _train_help(rest)
    return verb.run(rest)


def _train_help(rest: list[str]) -> int:
    """Hydra's list of groups and settings, without the groups that others are made of (`_parts`)."""
    import contextlib
    import io

    answer = io.StringIO()
    with contextlib.redirect_stdout(answer), contextlib.suppress(SystemExit):  # as Hydra leaves
        VERBS["train"].run(rest)
    lines = [line for line in answer.getvalue().splitlines() if not re.match(r"\S*/_\w+: ", line)]
    print("\nGroups and settings:\n", *lines, sep="\n")
    return DONE


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, VERBS, n=1)
    if near:
        return f"there is no command {name}: did you mean {near[0]}?"
    hint = f"did you mean genbench train {name}? " if "=" in name else ""
    return f"there is no command {name}: {hint}There are {', '.join(VERBS)}"
