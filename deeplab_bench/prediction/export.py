"""Export of a trained network to a file that other programs run: ONNX or ``torch.export``."""

import json
import tempfile
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from deeplab_bench.errors import UserError
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.prediction.predictor import Predictor
from deeplab_bench.writing import write_bytes

SUFFIXES = (".onnx", ".pt2")


class ExportError(UserError):
    """A network cannot be exported like this; the message says what to do."""


class RGBNetwork(nn.Module):
    """A network with the normalisation of its images before it."""

    def __init__(self, network: Segmenter) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits (N, num_classes, H, W) of RGB images (N, 3, H, W) of 0 to 255."""
        logits: Tensor = self.network(self.network.colours.normalise(images))
        return logits


def export(predictor: Predictor, path: Path, height: int, width: int) -> None:
    """Write the network as ONNX or, with the suffix .pt2, as a program of ``torch.export``.

    It maps ``images``, float32 RGB (N, 3, height, width) of 0 to 255, to ``logits`` (N,
    num_classes, height, width), for any N. The names of the classes are in the file: the
    metadata ``classes`` of ONNX, or the extra file ``classes.json``; both are JSON.

    Raises:
        ExportError: the suffix is another one, or a package is missing.
    """
    check_target(path)
    network = deepcopy(predictor.model).cpu().to(memory_format=torch.contiguous_format)
    module = RGBNetwork(network).eval()
    example = torch.zeros(2, 3, height, width)
    classes = json.dumps(predictor.classes)
    shapes = {"images": {0: torch.export.Dim("images")}}
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        written = Path(folder) / path.name
        if path.suffix == ".pt2":
            program = torch.export.export(module, (example,), dynamic_shapes=shapes)
            torch.export.save(program, written, extra_files={"classes.json": classes})
        else:
            graph = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
            assert graph is not None
            graph.model.metadata_props["classes"] = classes
            graph.save(written, external_data=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, written.read_bytes())


def check_target(path: Path) -> None:
    """Check that a network can be exported to this path.

    Raises:
        ExportError: the suffix is not known, or a package is missing.
    """
    if path.suffix not in SUFFIXES:
        raise ExportError(f"{path}: give a path that ends in {' or '.join(SUFFIXES)}")
    if path.suffix == ".onnx" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise ExportError("ONNX needs two packages: run `pip install onnx onnxscript`")
