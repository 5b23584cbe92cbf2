"""Command for comparisons of the speed of this project and of other libraries on one machine.

``python -m benchmarks`` runs every benchmark and writes its table to ``results/benchmarks``.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import confusion, crf, data_path, network_steps
from benchmarks.comparison import Benchmark, Workload, compare, write_table
from deeplab_bench.errors import UserError
from deeplab_bench.timing.machine import find_device

BENCHMARKS: dict[str, Callable[[Workload], Benchmark]] = {
    "training_step": network_steps.build_training_benchmark,
    "evaluation_step": network_steps.build_evaluation_benchmark,
    "batches": data_path.build_batches_benchmark,
    "waiting_for_data": data_path.build_waiting_benchmark,
    "miou": confusion.build_miou_benchmark,
    "crf": crf.build_crf_benchmark,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(BENCHMARKS)}"
    )
    parser.add_argument(
        "--hardware",
        default="cpu",
        metavar="LABEL",
        help="a label as in run.hardware of params.yaml (default: cpu)",
    )
    parser.add_argument(
        "--crop", type=int, metavar="PX", help="side of a crop (default: 128 on a CPU, else 512)"
    )
    parser.add_argument("--batch", type=int, help="images per step (default: 4 on a CPU, else 16)")
    parser.add_argument(
        "--seconds", type=float, default=30, help="time for each benchmark (default: 30)"
    )
    given = parser.parse_args()
    for name in given.names:
        if name not in BENCHMARKS:
            parser.error(f"there is no benchmark {name!r}: choose from {', '.join(BENCHMARKS)}")
    try:
        device = find_device(given.hardware)
        small = device.type == "cpu"
        with TemporaryDirectory() as folder:
            workload = Workload(
                device,
                given.crop or (128 if small else 512),
                given.batch or (4 if small else 16),
                given.seconds,
                Path(folder),
            )
            for name in given.names or BENCHMARKS:
                table = compare(BENCHMARKS[name](workload), workload)
                path = write_table(table, given.hardware)
                print(path.read_text(encoding="utf-8"))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
