"""What happens beside the steps of a training: its progress is shown, its snapshots are saved."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Never

from tqdm import tqdm

from deeplab_bench.runtime import distributed
from deeplab_bench.training.snapshots import Snapshots
from deeplab_bench.training.trainer import Trainer

SNAPSHOT_SECONDS = 120


class Watch:
    """Watches the training of one phase. Nothing of it changes the training."""

    def __init__(self, bar: "tqdm[Never]", snapshots: Snapshots, phase: int) -> None:
        self.bar, self.snapshots, self.phase = bar, snapshots, phase
        self.saved = time.monotonic()

    def __call__(self, trainer: Trainer) -> None:
        """Show the progress; save a snapshot if the last one is too old."""
        self.bar.set_postfix(loss=f"{trainer.last_loss():.3f}", refresh=False)
        self.bar.update(trainer.iteration - self.bar.n)
        if distributed.broadcast_object(time.monotonic() - self.saved > SNAPSHOT_SECONDS):
            self.save(trainer)
            self.saved = time.monotonic()

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
        yield Watch(bar, snapshots, phase)
