"""The settings of the process that makes a result."""

from typing import Literal

from pydantic import model_validator

from deeplab_bench.settings.base import PositiveInt, Settings

Determinism = Literal["portable", "strict", "native"]


class Process(Settings):
    """What a result may depend on, beside its settings, data and code.

    ``determinism`` is one of

    ``native``: a GPU computes as fast as it can, with TF32 products and algorithms without a fixed
    order of sums. On a CPU it is ``strict``.

    ``strict``: deterministic algorithms and no TF32, so that two runs on the same kind of GPU or
    CPU give the same bytes.

    ``portable``: ``strict``, and the CPU's instruction set is pinned to AVX2 in all mathematical
    libraries, so that every x86-64 machine with AVX2 gives the same bytes. It needs ``threads``.
    """

    determinism: Determinism = "strict"
    """How far the bytes of results are fixed."""
    threads: PositiveInt | None = None
    """CPU threads of a stage, on which sums depend; without it, one for each core."""

    @model_validator(mode="after")
    def _portable_has_threads(self) -> "Process":
        if self.determinism == "portable" and self.threads is None:
            raise ValueError("determinism 'portable' needs threads: set it to 1, for example")
        return self
