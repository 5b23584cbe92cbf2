"""Stage ``atrous``: the figure of atrous convolution, which no result moves."""

from deeplab_bench.report.atrous_figure import write_figure


def main() -> None:
    write_figure()
