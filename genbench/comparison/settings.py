"""The settings in which methods differ, as a user would write them."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from genbench.runs.method import method

LABEL_DIM = 32  # of a condition, by default

# keys whose values follow from other settings
_DERIVED = (
    "network.decoder.",
    "network.trunk.",
    "network.encoder.",
    "model.decoder.",
    "model.encoder.",
    "model.discriminator.",
    "model.likelihood.",
    "model.latent_dim",
    "arena.latent_dim",
)


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """What the fingerprint covers, as a user would write it: `network=conv`, `budget.images=5M`."""
    covered = method(config)
    sections = {"network": config.get("network"), **covered}
    if "likelihood" in (covered["model"] or {}):
        sections["likelihood"] = config.get("likelihood")
    labels = sections.pop("labels", {"condition": "none"})
    schedule = sections.pop("schedule", {"shape": "constant"})
    flat: dict[str, Any] = {
        "trainer.precision": sections.pop("precision"),
        "schedule._target_": schedule["shape"],  # the kind, as a user names it
    }
    flat |= {f"schedule.{k}": v for k, v in schedule.items() if k not in ("_target_", "shape")}
    flat["arena.condition"] = labels["condition"]
    if labels.get("label_dropout"):
        flat["arena.label_dropout"] = labels["label_dropout"]
    if labels.get("label_dim", LABEL_DIM) != LABEL_DIM:
        flat["arena.label_dim"] = labels["label_dim"]
    for name, section in sections.items():
        flat |= dict(flatten(section or {}, name))
    flat |= {"network._target_": _network(config)} if flat.get("network.latent_dim") else {}
    if flat.get("budget.images") is not None:
        flat["budget.images"] = images_text(flat["budget.images"])
    return {key: plain(value) for key, value in flat.items()}


def _network(config: Mapping[str, Any]) -> str:
    network = config["network"]
    kind = (network.get("decoder") or {}).get("_target_", "")
    return str(config.get("choices", {}).get("network") or kind)


def flatten(node: Mapping[str, Any], prefix: str) -> Iterable[tuple[str, Any]]:
    """Leaves of a nested mapping, with dotted keys that begin with `prefix`."""
    for name, value in node.items():
        key = f"{prefix}.{name}"
        if isinstance(value, Mapping):
            yield from flatten(value, key)
        else:
            yield key, value


_ABSENT, _OTHER = "", "?"  # not set; of another class, whose settings cannot be compared


@dataclass(frozen=True)
class _Setting:
    """One key and its value in every row; `_OTHER` in rows whose section has another class."""

    key: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return len({*self.values} - {_OTHER}) > 1


def differences(settings: Sequence[Mapping[str, str]]) -> list[str]:
    """Of each, the settings in which it differs from what most have, as a user would write them."""
    keys = sorted({key for one in settings for key in one}, key=_order)
    kinds = {key for key in keys if _is_kind(key)}
    differing = [s for key in keys for s in _by_kind(key, settings, kinds) if s.differs]
    if "auto" in {
        one["trainer.precision"] for one in settings
    }:  # of a run that failed before it was resolved
        differing = [s for s in differing if s.key != "trainer.precision"]
    own = [s for s in differing if not s.key.startswith(_DERIVED)]
    chosen: dict[tuple[str, ...], str] = {}
    for setting in own or differing:  # one key of those that are always equal
        chosen.setdefault(setting.values, setting.key)
    parts: list[list[str]] = [[] for _ in settings]
    for values, key in chosen.items():
        usual, short = _usual(values), _shortened(values)
        for place, value in enumerate(values):
            if value not in (usual, _OTHER):
                parts[place].append(_assignment(key, short[value]))
    return [", ".join(own) for own in parts]


def _order(key: str) -> tuple[bool, bool, str]:
    """Classes first; the discriminator's optimizer, by default the generator's, last."""
    return not _is_kind(key), key.startswith("model.discriminator_optimizer."), key


def _shortened(values: Sequence[str]) -> dict[str, str]:
    """Long fractions, as a search draws them, in four digits if they then still differ."""
    fraction = re.compile(r"-?\d*\.\d{5,}(e-?\d+)?")
    short = {v: f"{float(v):.4g}" if fraction.fullmatch(v) else v for v in values}
    return short if len({*short.values()}) == len(short) else {v: v for v in values}


def _is_kind(key: str) -> bool:
    return key.endswith("._target_")


def _by_kind(
    key: str, settings: Sequence[Mapping[str, str]], kinds: Set[str]
) -> Iterable[_Setting]:
    """A setting's values; a width of one kind of network is not compared to that of another."""
    parts = key.split(".")
    above = [".".join(parts[:i]) + "._target_" for i in range(len(parts) - 1, 0, -1)]
    section = next((name for name in above if name in kinds and name != key), "")
    for kind in sorted({one.get(section, _ABSENT) for one in settings if key in one}):
        fits = (one.get(section, _ABSENT) == kind for one in settings)
        yield _Setting(
            key,
            tuple(
                one.get(key, _ABSENT) if fit else _OTHER
                for one, fit in zip(settings, fits, strict=True)
            ),
        )


def _usual(values: Sequence[str]) -> str | None:
    """The most frequent value; None if two are equally frequent."""
    counts = Counter(value for value in values if value != _OTHER).most_common()
    return None if len(counts) > 1 and counts[0][1] == counts[1][1] else counts[0][0]


def _assignment(key: str, value: str) -> str:
    name = key.removesuffix("._target_")
    return f"no {name}" if value == _ABSENT else f"{name}={value}"


def plain(value: Any) -> str:
    """Write a value as in a command; a class as its config is named (`discretized-logistic`)."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = str(value)
    if text.startswith("genbench."):
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", text.rpartition(".")[2]).lower()
    return text


def images_text(count: float) -> str:
    """A number of images, or of anything, as one writes it: `128k`, `2.5M`, `1.2T`."""
    for size, suffix in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.4g}{suffix}"
    return str(count)
