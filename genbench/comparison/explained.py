"""The gap of each method for people: a sentence, a bar of letters, a table. Imports no torch."""

from collections.abc import Sequence

from genbench.comparison.gap import (
    DECODED,
    FITTED,
    FLOOR,
    NOT_ADDITIVE,
    PARTS,
    SAMPLED,
    Gap,
    Part,
    Values,
    spread,
)
from genbench.comparison.tables import Cell, Column, Table

BAR = 60  # letters of the longest bar
LETTERS = {"floor": ".", "decoder": "#", "latents": "=", "prior": "-"}
TOGETHER = "+"  # of parts that are not told apart
OWNERS = {"decoder": "the decoder's", "latents": "the latents'", "prior": "the prior's"}


def sentence(gap: Gap) -> str:
    """The gap in words and numbers: the sum, each part with its spread over seeds, the largest part."""
    seeds = len(gap.steps[-1].values)
    sampled, floor = gap.steps[-1], gap.step(FLOOR)
    text = f"{gap.label} ({seeds} seed{'s' if seeds != 1 else ''}): FD {spread(sampled.values.values())}"
    text += f" of {gap.num_samples:,} samples from {gap.source}"
    if floor:
        at = f"{spread(floor.values.values())} {floor.detail}".rstrip()
        text += f", where new images have {at}"
    said = [_words(gap, part) for part in gap.parts]
    told = "; ".join(said)
    text += f". {told[0].upper()}{told[1:]}" if told else ""
    return f"{text}.{_largest(gap.parts)}"


def _words(gap: Gap, part: Part) -> str:
    """`the decoder's part +1.2 (its reconstructions have 6.2)`."""
    last = part.name.rpartition(" and ")[2]
    step = gap.step(next(name for name, own in PARTS.items() if own == last))
    at = {
        DECODED: "reconstructions at {}",
        FITTED: "samples from {article} {detail} prior at {}",
        SAMPLED: "",
    }
    article = "an" if step is not None and step.detail[:1] in (*"aeiou",) else "a"
    place = ""
    if step is not None and at[step.name]:
        place = f" ({at[step.name].format(spread(step.values.values()), detail=step.detail, article=article)})"
    few = len(part.values) < len(gap.steps[-1].values)
    count = f" of {len(part.values)} seed{'s' * (len(part.values) > 1)}" if few else ""
    return f"{_owners(part)} {spread(part.values.values(), signed=True)}{count}{place}"


def _owners(part: Part) -> str:
    """`the prior's part`, `the latents' and the prior's part`."""
    return f"{' and '.join(OWNERS[name] for name in part.name.split(' and '))} part"


def _largest(parts: Sequence[Part]) -> str:
    """The largest part as a share of the way, or what a part below 0 means; empty for a single part."""
    whole = sum(part.mean for part in parts)
    most = max(parts, key=lambda part: part.mean, default=None)
    if any(part.mean < 0 for part in parts):
        largest = f" The largest is {_owners(most)}." if most and len(parts) > 1 else ""
        below = (
            " A part below 0: that step is nearer to the training images than the one before it."
        )
        return largest + below
    if most is None or len(parts) < 2 or whole <= 0:
        return ""
    return f" Most of the way from the first step is {_owners(most)}, {most.mean / whole:.0%}."


def bar(gap: Gap, longest: float) -> str:
    """The steps as letters, one length for all methods; a part below 0 is left out."""
    first = gap.steps[0]
    pieces = [("floor", first.mean)] if first.name == FLOOR else [(TOGETHER, first.mean)]
    pieces += [(part.name, part.mean) for part in gap.parts]
    text, end = "", 0.0
    for name, length in pieces:
        end += max(0.0, length)
        letters = max(0, round(BAR * end / longest) - len(text)) if longest > 0 else 0
        text += LETTERS.get(name, TOGETHER) * letters
    return text


def legend(gaps: Sequence[Gap]) -> str:
    """What the letters of bars mean."""
    words = [f"{letter} {name}" for name, letter in LETTERS.items()]
    together = any(part.name not in LETTERS for gap in gaps for part in gap.parts)
    return ", ".join(words + ([f"{TOGETHER} parts that are not told apart"] if together else []))


def gap_table(gaps: Sequence[Gap], title: str) -> Table:
    """A line per method: the distance at each step and each part, means ± sd over seeds."""
    names = [name for name in (FLOOR, DECODED, FITTED, SAMPLED) if any(g.step(name) for g in gaps)]
    parts = list(dict.fromkeys(part.name for gap in gaps for part in gap.parts))
    heads = [Column("model", "model", numeric=False)]
    heads += [Column(f"fd {name}", name) for name in names]
    heads += [Column(f"part {name}", f"{name}, part") for name in parts]
    heads += [Column("runs", "n", numeric=False)]
    lines = []
    for gap in gaps:
        steps = [gap.step(name) for name in names]
        own = {part.name: part for part in gap.parts}
        found = [own.get(name) for name in parts]
        count = len(gap.steps[-1].values)
        lines.append(
            [
                Cell(gap.label, {"label": gap.label}),
                *(_cell(step.values, detail=_named(step.name, step.detail)) if step else Cell() for step in steps),
                *(_cell(part.values, signed=True) if part else Cell() for part in found),
                Cell(str(count), {"finished": count}),
            ]
        )  # fmt: skip
    return Table(title, heads, lines, [NOT_ADDITIVE, *notes(gaps)])


def _named(name: str, detail: str) -> str:
    return f" ({detail})" if detail and name in (FITTED, SAMPLED) else ""


def _cell(values: Values, signed: bool = False, detail: str = "") -> Cell:
    own = list(values.values())
    exact = {"mean": sum(own) / len(own), "n": len(own), "values": own, "runs": list(values)}
    return Cell(spread(own, signed) + detail, exact)


def notes(gaps: Sequence[Gap]) -> list[str]:
    """What must be known to read the numbers, by method, and what fills a step that is not known."""
    said = [f"{gap.label}: {note}" for gap in gaps for note in gap.notes]
    return said + [f"{gap.label}: not known is {words}" for gap in gaps for words in gap.missing]


def scale(gaps: Sequence[Gap]) -> float:
    """The largest distance of all methods, which is the longest bar."""
    return max((step.mean for gap in gaps for step in gap.steps), default=0.0)


def heading(gaps: Sequence[Gap]) -> str:
    """Of which features and how many samples the distances are: `FD in lenet-digits-v1, 2,000 samples`."""
    features = ", ".join(dict.fromkeys(gap.extractor for gap in gaps))
    counts = ", ".join(dict.fromkeys(f"{gap.num_samples:,}" for gap in gaps))
    return f"FD in the features of {features}, {counts} samples"
