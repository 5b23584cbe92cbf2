"""Stage ``report``: a profile's results to tables, figures and a page."""

from deeplab_bench.report import write_report
from deeplab_bench.settings.params import load_params


def main(profile: str) -> None:
    write_report(load_params(), profile)
