"""What happens beside the steps of a training: progress, curves, snapshots, signals to end.

Of several processes, process 0 alone shows progress, validates and logs.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Never

from tqdm import tqdm

from deeplab_bench.runtime import distributed
from deeplab_bench.runtime.signals import EndRequest, noted_end_request
from deeplab_bench.training.live import Live
from deeplab_bench.training.snapshots import Snapshots
from deeplab_bench.training.trainer import Trainer
from deeplab_bench.training.validation import Validation, begin_validation

SNAPSHOT_SECONDS = 120
END = "the training ends after this step; press Ctrl-C again to end it at once"


class Watch:
    """Watches the training of one phase. Nothing of it changes the training."""

    def __init__(
        self,
        bar: "tqdm[Never]",
        snapshots: Snapshots,
        phase: int,
        validation: Validation | None,
        live: Live | None,
        end: EndRequest,
    ) -> None:
        self.bar, self.snapshots, self.phase = bar, snapshots, phase
        self.validation, self.live, self.end = validation, live, end
        self.saved = time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        """Show the progress, validate, log curves; save a snapshot if it is time for it.

        Raises:
            SystemExit: a signal has asked for the end. The snapshot has all steps so far.
        """
        steps_per_second = self.bar.format_dict["rate"] or 0.0
        self.bar.set_postfix(
            loss=f"{trainer.last_loss():.3f}",
            images_per_s=f"{steps_per_second * trainer.training.batch_size:.3g}",
            refresh=False,
        )
        self.bar.update(trainer.iteration - self.bar.n)
        started = time.monotonic()
        if self.validation is not None:
            self.validation(trainer)
        if self.live is not None:
            self.live(trainer, time.monotonic() - started)
        is_old = time.monotonic() - self.saved > SNAPSHOT_SECONDS
        is_old, ended_by = distributed.broadcast_object((is_old, self.end.number))
        if is_old or ended_by is not None:
            self.save(trainer)
            self.saved = time.monotonic()
        if ended_by is not None:
            raise SystemExit(128 + ended_by)

    def save(self, trainer: Trainer) -> None:
        state = trainer.state()
        if distributed.rank() == 0:
            self.snapshots.save(self.phase, trainer.iteration, state)


@contextmanager
def watch_training(
    trainer: Trainer, snapshots: Snapshots, phase: int, title: str
) -> Iterator[Watch]:
    """Begin to watch a training, from where its trainer stands; write its curve at the end."""
    is_first = distributed.rank() == 0
    validation = begin_validation(snapshots, phase) if is_first else None
    live = Live(snapshots, phase, trainer) if is_first else None
    with (
        tqdm(
            desc=title,
            unit="step",
            initial=trainer.iteration,
            total=trainer.training.iterations,
            disable=not is_first,
        ) as bar,
        noted_end_request(lambda: bar.write(END)) as end,
    ):
        yield Watch(bar, snapshots, phase, validation, live, end)
    if validation is not None:
        validation.write()
