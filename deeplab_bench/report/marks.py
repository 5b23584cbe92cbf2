"""Marks at models whose numbers need a warning, as of implausible runs and of older code.

A marked model is shown and averaged like the others: a number that is left out is easier to
overlook than one with a mark.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from deeplab_bench.report.results import Results

IMPLAUSIBLE, OUTDATED, TRAINED_ON_VAL = "†", "‡", "¶"
RED = "#C00000"


@dataclass(frozen=True)
class Marks:
    """The marked models of a profile.

    ``implausible`` has the reasons by model, ``outdated`` the stages whose results come from older
    code. ``trained_on_val`` are models whose training saw the images that they are scored on.
    """

    profile: str
    implausible: Mapping[str, str]
    outdated: Mapping[str, tuple[str, ...]]
    trained_on_val: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.implausible or self.outdated or self.trained_on_val)

    def find_symbols(self, name: str) -> str:
        """Return the marks of a model, given its name or ``model, way of inference``."""
        model = name.partition(",")[0]
        marked: dict[str, Container[str]] = {
            IMPLAUSIBLE: self.implausible,
            OUTDATED: self.outdated,
            TRAINED_ON_VAL: self.trained_on_val,
        }
        return "".join(symbol for symbol, models in marked.items() if model in models)

    def add_to(self, name: str) -> str:
        """Return the name with its marks, if it has any."""
        symbols = self.find_symbols(name)
        return f"{name} {symbols}" if symbols else name

    def select(self, names: Iterable[str]) -> "Marks":
        """Return the marks of these models alone."""
        models = {name.partition(",")[0] for name in names}
        return Marks(
            self.profile,
            {model: reason for model, reason in self.implausible.items() if model in models},
            {model: stages for model, stages in self.outdated.items() if model in models},
            tuple(model for model in self.trained_on_val if model in models),
        )

    def describe(self) -> str:
        """Return what each mark means, in a few words for a figure."""
        words = [f"{IMPLAUSIBLE} implausible"] if self.implausible else []
        words += [f"{OUTDATED} results of older code"] if self.outdated else []
        words += [f"{TRAINED_ON_VAL} trained on val"] if self.trained_on_val else []
        return " · ".join(words)

    def list_reasons(self) -> list[str]:
        """Return a sentence or two for each mark: the models and the reasons."""
        reasons = []
        if self.implausible:
            models = "; ".join(f"{model} ({why})" for model, why in self.implausible.items())
            reasons.append(f"{IMPLAUSIBLE} Implausible: {models}. The means include these runs.")
        if self.trained_on_val:
            models = ", ".join(self.trained_on_val)
            reasons.append(
                f"{TRAINED_ON_VAL} Trained on val: {models}. The training saw the images that are "
                "scored, so that these scores say nothing about new images."
            )
        if self.outdated:
            reasons.append(f"{OUTDATED} Results of older code: {self._list_outdated()}.")
        return reasons

    def format_alert(self) -> str:
        """Return an alert in GitHub's Markdown, which is shown in red; nothing without marks."""
        if not self:
            return ""
        reasons = self.list_reasons()
        if self.outdated:
            reasons[-1] += f" `make repro PROFILE={self.profile}` makes them anew."
        return "> [!CAUTION]\n" + "\n>\n".join(f"> {reason}" for reason in reasons)

    def _list_outdated(self) -> str:
        """Return the models, those with the same stages together."""
        models: dict[tuple[str, ...], list[str]] = {}
        for model, stages in self.outdated.items():
            models.setdefault(stages, []).append(model)
        return "; ".join(f"{', '.join(m)} ({', '.join(stages)})" for stages, m in models.items())


def find_marks(results: Results) -> Marks:
    return Marks(results.profile, results.implausible, results.outdated, results.trained_on_val)
