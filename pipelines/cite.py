"""Command ``cite``: what a report needs to cite a model's results."""

from typing import Annotated

from deeplab_bench.report.citation import cite
from deeplab_bench.report.loading import declare, load_results
from deeplab_bench.settings.loading import load_params


def main(
    model: Annotated[str, "a model of params.yaml"],
    *,
    profile: Annotated[str, "default: the first that runs"] = "",
) -> None:
    """
    Raises:
        ParamsError: params.yaml does not define the profile.
        RecordError: a result is missing.
        ReportError: there are no results of the profile, or none of the model.
    """
    params = load_params()
    chosen = params.pick_profile(profile)
    print(cite(load_results(declare(params, chosen), chosen), model))
