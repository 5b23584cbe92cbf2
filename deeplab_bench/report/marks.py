"""Marks at models whose numbers need a warning.

Marked models are shown and averaged like the others. A missing number would be easier to overlook
than a marked one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from deeplab_bench.report.results import Results

IMPLAUSIBLE, UNTRAINED, OUTDATED = "†", "§", "‡"
RED = "#C00000"


@dataclass(frozen=True)
class Marks:
    """The marked models of a profile.

    ``implausible`` and ``untrained`` have the reasons by model, ``outdated`` the stages whose
    results come from older code.
    """

    profile: str
    implausible: Mapping[str, str]
    untrained: Mapping[str, str]
    outdated: Mapping[str, tuple[str, ...]]

    def __bool__(self) -> bool:
        return bool(self.implausible or self.untrained or self.outdated)

    def find_symbols(self, name: str) -> str:
        """Return the marks of a model, given its name or ``model, way of inference``."""
        model = name.partition(",")[0]
        marked = {
            IMPLAUSIBLE: self.implausible,
            UNTRAINED: self.untrained,
            OUTDATED: self.outdated,
        }
        return "".join(symbol for symbol, models in marked.items() if model in models)

    def add_to(self, name: str) -> str:
        """Return the name with its marks, if it has any."""
        symbols = self.find_symbols(name)
        return f"{name} {symbols}" if symbols else name

    def select(self, names: Iterable[str]) -> "Marks":
        """Select the marks of these models."""
        models = {name.partition(",")[0] for name in names}
        return Marks(
            self.profile,
            {model: reason for model, reason in self.implausible.items() if model in models},
            {model: reason for model, reason in self.untrained.items() if model in models},
            {model: stages for model, stages in self.outdated.items() if model in models},
        )

    def describe(self) -> str:
        """Return what each mark means, in a few words for a figure."""
        words = [f"{IMPLAUSIBLE} implausible"] if self.implausible else []
        words += [f"{UNTRAINED} not trained"] if self.untrained else []
        words += [f"{OUTDATED} results of older code"] if self.outdated else []
        return " · ".join(words)

    def list_reasons(self) -> list[str]:
        """Return one or two sentences for each mark: the models and the reasons."""
        reasons = []
        for symbol, word, marked in (
            (IMPLAUSIBLE, "Implausible", self.implausible),
            (UNTRAINED, "Not trained", self.untrained),
        ):
            if marked:
                models = "; ".join(f"{model} ({why})" for model, why in marked.items())
                reasons.append(f"{symbol} {word}: {models}. The means include these runs.")
        if self.outdated:
            reasons.append(f"{OUTDATED} Results of older code: {self._list_outdated()}.")
        return reasons

    def format_alert(self) -> str:
        """Format an alert in GitHub's Markdown, shown in red; empty if there are no marks."""
        if not self:
            return ""
        reasons = self.list_reasons()
        if self.outdated:
            reasons[-1] += f" Run `make repro PROFILE={self.profile}` to make them again."
        return "> [!CAUTION]\n" + "\n>\n".join(f"> {reason}" for reason in reasons)

    def _list_outdated(self) -> str:
        """Format the models, grouped by their stages."""
        models: dict[tuple[str, ...], list[str]] = {}
        for model, stages in self.outdated.items():
            models.setdefault(stages, []).append(model)
        return "; ".join(f"{', '.join(m)} ({', '.join(stages)})" for stages, m in models.items())


def find_marks(results: Results) -> Marks:
    return Marks(results.profile, results.implausible, results.untrained, results.outdated)
