"""The commands: `commands/<verb>.py` has the usage, the parser and `main(argv)` of `genbench <verb>`.

A dash in a verb is an underscore there.

Only `data` and `extractor` import torch, because they do their work in this process.
"""

VERBS = {  # in the order of `genbench --help`, with a summary each
    "train": "train one model, score it and record it; -m for several",
    "resume": "continue an interrupted run",
    "evaluate": "score runs again under another protocol",
    "sample": "draw images from a run",
    "compare": "print the table: models in rows, seeds aggregated",
    "explain": "say where each model's distance comes from: decoder, latents, prior",
    "diff": "print what two runs differ in",
    "report": "write a study on one page: table, curves, pictures",
    "board": "write a static site of many machines' runs, with filters",
    "reproduce": "list published numbers with what was measured of them; run one",
    "verify": "compute a run's scores again from its weights, and demand the recorded ones",
    "runs": "print a line per run; --format json for scripts; tag or remove them",
    "export": "put runs and scores into a database or a file; weights into ONNX or safetensors",
    "push": "put records of runs into a folder or a git repository for others",
    "pull": "fetch the records that others have pushed",
    "wandb": "send what was logged offline; save a view of a study there",
    "show": "print one run: settings, scores with cards, cost, files",
    "card": "print a model card of one run",
    "data": "list, check or prepare datasets",
    "list": "list models, networks, datasets, ... and where they come from",
    "new": "begin a model of your own: file, config, tests, package",
    "check-model": "try on a model what every model must pass",
    "extractor": "list feature networks, or train one for a dataset",
    "doctor": "print what is installed here and what is missing",
    "completion": "print a shell's completion script",
}
