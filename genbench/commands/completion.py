"""`genbench completion`: tab completion of verbs, runs, groups and settings."""

import contextlib
import io
import os
from collections.abc import Sequence

from genbench.commands import VERBS
from genbench.commands.arguments import wants_help
from genbench.errors import DONE, GenbenchError, UserMistake

USAGE = """\
usage: genbench completion bash|zsh|fish

Completes verbs, runs, and for train every group, option and setting.

  bash:  eval "$(genbench completion bash)"        in ~/.bashrc
  zsh:   eval "$(genbench completion zsh)"         in ~/.zshrc, after compinit
  fish:  genbench completion fish | source         in ~/.config/fish/config.fish"""


# commands whose first argument is (or may be) one of a few subcommands
SUBCOMMANDS = {
    "completion": ["bash", "zsh", "fish"],
    "data": ["list", "check", "prepare"],
    "extractor": ["list", "train"],
    "list": ["models", "networks", "datasets", "evaluations", "extractors", "experiments"],
    "new": ["model"],
    "runs": ["tag", "remove"],
    "wandb": ["sync", "workspace"],
}
TAKES_A_RUN = (
    "resume", "evaluate", "sample", "show", "compare", "diff", "card", "report", "runs",
)  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Print a shell's completion script, or the candidates for a line; returns the exit code."""
    if wants_help(argv):
        print(USAGE)
        return DONE
    if len(argv) == 2 and argv[0] == "query":
        print("\n".join(_candidates(argv[1])))
        return DONE
    if len(argv) != 1 or argv[0] not in SCRIPTS:
        raise UserMistake("completion takes the name of a shell: bash, zsh or fish")
    print(SCRIPTS[argv[0]])
    return DONE


def _candidates(line: str) -> list[str]:
    """Completions of the last word of a command line that is typed up to the cursor."""
    words = line.split()
    current = "" if line.endswith(" ") else words[-1]
    if len(words) < 2 or (len(words) == 2 and current):
        found = list(VERBS)
    elif words[1] == "train":
        return _hydra_candidates(line)
    else:
        found = list(SUBCOMMANDS.get(words[1], []))
        if words[1] in TAKES_A_RUN:
            found += _runs()
    return [candidate for candidate in found if candidate.startswith(current)]


def _runs() -> list[str]:
    from genbench.runs.directory import iter_runs
    from genbench.runs.paths import default_outputs

    return ["latest", *(run.name for run in iter_runs(default_outputs()))]


def _hydra_candidates(line: str) -> list[str]:
    """Hydra's completions of the line without the verb."""
    from genbench.launch import task

    program, _, rest = line.split(" ", 2) if line.count(" ") > 1 else (*line.split(" "), "")
    os.environ["COMP_LINE"] = f"{program} {rest}"
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer), contextlib.suppress(GenbenchError):
        task.train(["-sc", "query=bash"])
    return answer.getvalue().split()


SCRIPTS = {
    "bash": """\
_genbench() {
    local line="${COMP_LINE:0:COMP_POINT}"
    local IFS=$'\\n'
    COMPREPLY=($(compgen -W "$("${COMP_WORDS[0]}" completion query "$line" 2>/dev/null)" \\
        -- "${line##* }"))
}
COMP_WORDBREAKS=${COMP_WORDBREAKS//=}
complete -o nospace -o default -F _genbench genbench""",
    "zsh": """\
_genbench() {
    local -a found
    found=(${(f)"$(${words[1]} completion query "${(j: :)words[1,CURRENT]}" 2>/dev/null)"})
    compadd -S '' -- $found
}
compdef _genbench genbench""",
    "fish": """\
complete -c genbench -f -a '(genbench completion query (commandline -cp) 2>/dev/null)'""",
}
