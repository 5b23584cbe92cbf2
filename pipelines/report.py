"""Stage ``report``: write tables, figures and a page from a profile's results."""

from deeplab_bench.report import write_report
from deeplab_bench.settings.loading import load_params


def main(profile: str) -> None:
    write_report(load_params(), profile)
