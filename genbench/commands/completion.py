"""`genbench completion`: tab completion of verbs, runs, groups and settings. Imports no torch."""

import os

from genbench.errors import DONE, GenbenchError, UserMistake


def main(argv: list[str]) -> int:
    """Print a shell's completion script, or the candidates for a line; returns the exit code."""
    if len(argv) == 2 and argv[0] == "query":
        print("\n".join(_candidates(argv[1])))
        return DONE
    if len(argv) != 1 or argv[0] not in _COMPLETION:
        raise UserMistake("completion takes the name of a shell: bash, zsh or fish")
    print(_COMPLETION[argv[0]])
    return DONE


# --- completion ---------------------------------------------------------------------------------
def _candidates(line: str) -> list[str]:
    """What may follow on a command line that has been written up to the cursor."""
    from genbench.cli import VERBS

    words = line.split()
    current = "" if line.endswith(" ") else words[-1]
    if len(words) < 2 or (len(words) == 2 and current):
        found = list(VERBS)
    elif words[1] == "train":
        return _hydra_candidates(line)
    elif words[1] == "completion":
        found = list(_COMPLETION)
    elif words[1] == "data":
        found = ["list", "check", "prepare"]
    elif words[1] == "extractor":
        found = ["list", "train"]
    elif words[1] == "wandb":
        found = ["sync", "workspace"]
    elif words[1] in ("resume", "evaluate", "sample", "show", "compare", "report", "runs"):
        from genbench.runs.directory import iter_runs
        from genbench.runs.paths import default_outputs

        words_first = ["tag", "remove"] if words[1] == "runs" else []
        found = [*words_first, "latest", *(run.name for run in iter_runs(default_outputs()))]
    else:
        found = []
    return [candidate for candidate in found if candidate.startswith(current)]


def _hydra_candidates(line: str) -> list[str]:
    """Hydra's own answer to the line without the verb."""
    import contextlib
    import io

    from genbench.launch import task

    program, _, rest = line.split(" ", 2) if line.count(" ") > 1 else (*line.split(" "), "")
    os.environ["COMP_LINE"] = f"{program} {rest}"
    answer = io.StringIO()
    with contextlib.redirect_stdout(answer), contextlib.suppress(GenbenchError):
        task.train(["-sc", "query=bash"])
    return answer.getvalue().split()


_COMPLETION = {
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
