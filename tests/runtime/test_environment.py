"""Tests of the description of the machine."""

import json
import sys
from typing import Any

import torch

from deeplab_bench.runtime.environment import describe_environment


def test_environment() -> None:
    found: dict[str, Any] = describe_environment(torch.device("cpu"))
    assert set(found) == {
        "device",
        "threads",
        "cpus",
        "python",
        "torch",
        "torchvision",
        "numpy",
        "pillow",
        "cuda",
    }
    assert found["device"] and found["cuda"] is None
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["threads"] == torch.get_num_threads()
    json.dumps(found)
