"""``python -m benchmarks``: our work beside the same work by others, in turn, on one machine."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import confusion, data_path, network_steps, plain_crf
from benchmarks.comparison import Benchmark, Settings, compare, save
from deeplab_bench.errors import UserError
from deeplab_bench.settings.params import load_params
from deeplab_bench.timing.speed import device_for
from studies import repro_overhead as repro

BENCHMARKS: dict[str, Callable[[Settings], Benchmark]] = {
    "training_step": network_steps.training,
    "evaluation_step": network_steps.evaluation,
    "batches": data_path.batches,
    "waiting_for_data": data_path.waiting,
    "miou": confusion.miou,
    "crf": plain_crf.crf,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"default: all of {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("--hardware", default="cpu", metavar="LABEL", help="as in run.hardware")
    parser.add_argument("--crop", type=int, metavar="PX", help="default: 512, on a CPU 128")
    parser.add_argument("--batch", type=int, help="images a step; default: 16, on a CPU 4")
    parser.add_argument("--seconds", type=float, default=30, help="of each benchmark (default: 30)")
    parser.add_argument("--repro", action="store_true", help="also run `dvc repro --force`")
    given = parser.parse_args()
    for name in given.names:
        if name not in BENCHMARKS:
            parser.error(f"{name!r} is none of {', '.join(BENCHMARKS)}")
    try:
        device = device_for(given.hardware)
        small = device.type == "cpu"
        with TemporaryDirectory() as folder:
            settings = Settings(
                device,
                given.crop or (128 if small else 512),
                given.batch or (4 if small else 16),
                given.seconds,
                Path(folder),
            )
            for name in given.names or BENCHMARKS:
                path = save(compare(BENCHMARKS[name](settings), settings), given.hardware)
                print(path.read_text(encoding="utf-8"))
        if given.repro:
            print(repro.repro_text(load_params()))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
