"""Stage ``report``: a profile's results to tables, plots and a page."""

from deeplab_bench.params import load_params
from deeplab_bench.report import write_report
from pipelines.stage import run


def main(profile: str) -> None:
    write_report(load_params(), profile)


if __name__ == "__main__":
    run(main, "profile")
