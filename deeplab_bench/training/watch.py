"""What happens beside the steps of a training: progress, curves, snapshots, signals to end."""

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

SNAPSHOT_SECONDS = 120
END = "the training ends after this step; press Ctrl-C again to end it at once"


class Watch:
    """Watches the training of one phase. Nothing of it changes the training."""

    def __init__(
        self,
        bar: "tqdm[Never]",
        snapshots: Snapshots,
        phase: int,
        live: Live | None,
        end: EndRequest,
    ) -> None:
        self.bar, self.snapshots, self.phase, self.live = bar, snapshots, phase, live
        self.end = end
        self.saved = time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        """Show the progress, log curves; save a snapshot if the last one is too old, or at the end.

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
        if self.live is not None:
            self.live(trainer)
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
    """Begin to watch a training, from where its trainer stands."""
    with tqdm(
        desc=title,
        unit="step",
        initial=trainer.iteration,
        total=trainer.training.iterations,
        disable=distributed.rank() > 0,
    ) as bar:
        live = None if distributed.rank() > 0 else Live(snapshots.checkpoint, phase, trainer)
        with noted_end_request(lambda: bar.write(END)) as end:
            yield Watch(bar, snapshots, phase, live, end)
