"""Comparison of pinned trainings on several processors: ``python -m studies.portability``.

Each processor makes two training steps of every model of ``run.models`` on the same random batch,
and then the logits of one image. The digests of all weights, gradients' effects included, and of
the logits are compared with those of this processor. Other processors are emulated by
``qemu-x86_64``, where it is installed (Debian's package qemu-user): they have other vendors, cache
sizes and instruction sets. Emulation takes minutes for each processor.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from deeplab_bench.runtime.pins import get_pins, list_pins

STEPS = 2
CLASSES = 5
# Processors of qemu 7.2 with AVX2; it emulates no AVX-512.
EMULATED = ("Haswell", "Skylake-Client", "EPYC-Rome", "EPYC-Milan")
Digests = dict[str, dict[str, str]]  # by model and tensor


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", default="quick")
    parser.add_argument("--models", nargs="*", help="default: all of run.models")
    parser.add_argument("--emulate", nargs="*", default=EMULATED, metavar="CPU")
    parser.add_argument("--digests", action="store_true", help="print this processor's digests")
    given = parser.parse_args()
    if given.digests:
        print(json.dumps(compute_digests(given.profile, given.models)))
        return
    command = [sys.executable, "-m", "studies.portability", "--digests", "--profile", given.profile]
    if given.models:
        command += ["--models", *given.models]
    pins = list_pins("portable", threads=1)
    reference = run(command, pins)
    cases = {"this processor, pinned, again": (command, pins)}
    cases["this processor, not pinned"] = (command, {})
    cases["one core, pinned"] = (["taskset", "-c", "0", *command], pins)
    for cpu in given.emulate if shutil.which("qemu-x86_64") else ():
        cases[f"{cpu}, emulated, pinned"] = (["qemu-x86_64", "-cpu", cpu, *command], pins)
    for name, (case, environment) in cases.items():
        print(f"{name}: {compare(run(case, environment), reference)}", flush=True)


def run(command: Sequence[str], environment: dict[str, str]) -> Digests:
    """Run the command that prints digests, with these pins and no others."""
    clean = {name: value for name, value in os.environ.items() if name not in get_pins()}
    done = subprocess.run(
        command,
        env=clean | environment,
        cwd=Path(__file__).resolve().parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return json.loads(done.stdout)


def compare(found: Digests, reference: Digests) -> str:
    """Say which models are equal, and the first tensor in which each other one differs."""
    first = {
        model: next(name for name, digest in tensors.items() if digest != reference[model][name])
        for model, tensors in found.items()
        if tensors != reference[model]
    }
    if not first:
        return f"all {len(found)} models equal"
    differing = ", ".join(f"{model} from {name}" for model, name in first.items())
    return f"{len(found) - len(first)} of {len(found)} models equal; not {differing}"


def compute_digests(profile: str, models: Sequence[str] | None) -> Digests:
    """Compute the digests of every model on this processor."""
    # numpy and torch are imported only here, under the pins of this process.
    import torch
    from torch import Tensor

    from deeplab_bench.models import build_model
    from deeplab_bench.runtime.device import make_deterministic
    from deeplab_bench.settings.loading import load_params
    from deeplab_bench.training.trainer import Trainer

    def digest(tensor: Tensor) -> str:
        content = tensor.detach().contiguous().numpy().tobytes()
        return hashlib.sha256(content).hexdigest()[:12]

    params = load_params()
    digests: Digests = {}
    for name in models or params.run.models:
        experiment = params.experiment(profile, name)
        training = experiment.training
        make_deterministic(0)
        model = build_model(experiment.architecture, experiment.arguments, num_classes=CLASSES)
        model = model.to(memory_format=torch.channels_last)
        trainer = Trainer(model, training, torch.device("cpu"))
        size = training.crop_size
        images = torch.randint(256, (training.batch_size, 3, *size), dtype=torch.uint8)
        labels = torch.randint(CLASSES, (training.batch_size, *size), dtype=torch.uint8)
        found = {}
        for step in range(STEPS):
            trainer.step(images, labels)
            found[f"loss {step}"] = digest(trainer.losses[step])
            found |= {
                f"{key} after step {step}": digest(value)
                for key, value in model.state_dict().items()
            }
        with torch.inference_mode():
            logits = model.eval()(model.colours.normalise(images[:1]))
        digests[name] = found | {"logits": digest(logits)}
    return digests


if __name__ == "__main__":
    main()
