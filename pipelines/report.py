"""Stage ``report``: a profile's results to tables, plots and a page."""

from deeplab_bench.params import load_params
from deeplab_bench.report import write_report


def main(profile: str) -> None:
    write_report(load_params(), profile)
