"""Marks of models whose numbers need a warning.

Marked models are shown and averaged like the others. A missing number would be easier to overlook
than a marked one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from deeplab_bench.report.results import Results

RED = "#C00000"


class Mark(NamedTuple):
    """A mark: its symbol, its meaning in a few words, and what follows from it."""

    symbol: str
    meaning: str
    consequence: str = ""


MARKS = {  # by the name of the reasons in ``Results.warnings``
    "implausible": Mark("†", "implausible", " The means include these runs."),
    "bad_start": Mark("◊", "badly started", " The scores say little about the design."),
    "unfinished": Mark("§", "unfinished", " Longer training may change their order."),
    "beyond_crops": Mark(
        "‖", "rates beyond the training crops", " The scores say little about the design."
    ),
    "trained_on_val": Mark("¶", "trained on val", " The scores say nothing about new images."),
    "outdated": Mark("‡", "results of older code"),
}


@dataclass(frozen=True)
class Marks:
    """The marked models of a profile: the reasons by name of the mark and by model.

    ``remedy`` is the command that makes results of older code again.
    """

    profile: str
    reasons: Mapping[str, Mapping[str, str]]
    remedy: str

    def __bool__(self) -> bool:
        return any(self.reasons.values())

    def find_symbols(self, name: str) -> str:
        """Return the marks of a model, given its name or ``model, way of inference``."""
        model = name.partition(",")[0]
        return "".join(mark.symbol for mark, models in self._shown() if model in models)

    def add_to(self, name: str) -> str:
        """Return the name with its marks, if it has any."""
        symbols = self.find_symbols(name)
        return f"{name} {symbols}" if symbols else name

    def select(self, names: Iterable[str]) -> "Marks":
        """Return the marks of these models alone."""
        models = {name.partition(",")[0] for name in names}
        selected = {
            mark: {model: reason for model, reason in found.items() if model in models}
            for mark, found in self.reasons.items()
        }
        return Marks(self.profile, selected, self.remedy)

    def describe(self) -> str:
        """Return what each mark means, in a few words for a figure."""
        return " · ".join(f"{mark.symbol} {mark.meaning}" for mark, _ in self._shown())

    def list_reasons(self) -> list[str]:
        """Return one or two sentences for each mark: the models and the reasons."""
        return [
            f"{mark.symbol} {mark.meaning.capitalize()}: {group_models(models)}.{mark.consequence}"
            for mark, models in self._shown()
        ]

    def format_alert(self) -> str:
        """Return an alert in GitHub's Markdown, which is shown in red; nothing without marks."""
        if not self:
            return ""
        reasons = self.list_reasons()
        if self.reasons.get("outdated"):
            reasons[-1] += f" Run `{self.remedy}` to make them again."
        return "> [!CAUTION]\n" + "\n>\n".join(f"> {reason}" for reason in reasons)

    def _shown(self) -> list[tuple[Mark, Mapping[str, str]]]:
        return [
            (mark, self.reasons[name]) for name, mark in MARKS.items() if self.reasons.get(name)
        ]


def group_models(reasons: Mapping[str, str]) -> str:
    """Return the models, those with the same reason together."""
    models: dict[str, list[str]] = {}
    for model, reason in reasons.items():
        models.setdefault(reason, []).append(model)
    return "; ".join(f"{', '.join(names)} ({reason})" for reason, names in models.items())


def find_marks(results: Results) -> Marks:
    return mark_models(results.profile, results.warnings)


def mark_models(profile: str, reasons: Mapping[str, Mapping[str, str]]) -> Marks:
    return Marks(profile, reasons, f"make repro PROFILE={profile}")
