"""Tests of predictions at every image's own size, and of probabilities computed by hand."""

import numpy as np
import pytest
import torch
from conftest import ARGUMENTS
from PIL import Image
from small_networks import interpolate_by_hand

from deeplab_bench.colours import IMAGENET
from deeplab_bench.data.augmentation import resize
from deeplab_bench.data.packed import Split
from deeplab_bench.data.pixels import Pixels
from deeplab_bench.evaluation.checkpoint import Checkpoint
from deeplab_bench.evaluation.predict import (
    batch_by_size,
    compute_probabilities,
    predict,
    predict_probabilities,
)
from deeplab_bench.models import build_model, list_arguments
from deeplab_bench.models.multi_scale import rescale
from deeplab_bench.models.registry import ARCHITECTURES
from deeplab_bench.models.segmenter import Segmenter
from deeplab_bench.settings.experiment import Experiment
from deeplab_bench.settings.inference import Inference

ONE_PASS = Inference()


@pytest.fixture(scope="module")
def model(experiment: Experiment, checkpoint: Checkpoint) -> Segmenter:
    return checkpoint.build_model()


def predicted(model: Segmenter, split: Split) -> list[Pixels]:
    found = dict(predict(model, split, range(len(split)), "", ONE_PASS))
    return [found[index] for index in range(len(split))]


class TestPredict:
    @pytest.mark.parametrize("architecture", ARCHITECTURES)
    def test_any_architecture_and_size(self, architecture: str, val: Split) -> None:
        """Check the sizes of the predictions, and that the network's state does not change."""
        known = list_arguments(architecture)
        arguments = {key: value for key, value in ARGUMENTS.items() if key in known}
        torch.manual_seed(0)
        model = build_model(architecture, arguments, num_classes=6).train()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        assert [p.shape for p in predicted(model, val)] == val.sizes
        for key, value in model.state_dict().items():
            assert torch.equal(value.cpu(), before[key]), key

    def test_images_do_not_see_each_other(self, model: Segmenter, val: Split) -> None:
        """Check an image in one batch with others of its size."""
        image, label = val.image(2), val.label(2)
        together = Split(
            ["image", "mirrored", "turned"],
            [val.sizes[2]] * 3,
            val.classes,
            np.concatenate([image.ravel(), image[:, ::-1].ravel(), image[::-1].ravel()]),
            np.tile(label.ravel(), 3),
            [0, label.size, 2 * label.size],
        )
        found = predicted(model, together)
        np.testing.assert_array_equal(found[0], predicted(model, val)[2])
        assert all((found[0] != other).any() for other in found[1:])

    def test_batches_are_of_one_size(self) -> None:
        sizes = [(2, 3), (4, 5), (2, 3), (3, 2), (2, 3), (4, 5)]
        assert list(batch_by_size(sizes, range(6), 12)) == [[0, 2], [4], [1], [5], [3]]
        assert list(batch_by_size(sizes, [5, 1, 2], 40)) == [[5, 1], [2]]


class TestProbabilities:
    @pytest.mark.parametrize("flip", [False, True])
    @pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0), (0.75, 1.5)])
    def test_probabilities_by_hand(
        self, scales: tuple[float, ...], flip: bool, experiment: Experiment, val: Split
    ) -> None:
        """Compare with the mean over rescaled and mirrored images, each turned and resized back."""
        torch.manual_seed(0)
        model = build_model("fcn", experiment.arguments, num_classes=6).eval()
        inference = Inference(scales=scales, flip=flip)
        found = list(predict_probabilities(model, val, range(len(val)), "", inference))
        assert len(found) == len(val)
        for index in (0, 1):
            image = torch.from_numpy(val.image(index).transpose(2, 0, 1)[None].copy())
            height, width = val.sizes[index]
            views = []
            for scale in scales:
                seen = rescale(model.colours.normalise(image), scale, antialias=True)
                for mirrored in [seen, seen.flip(3)][: 1 + flip]:
                    with torch.no_grad():
                        logits = model(mirrored)
                    logits = logits if mirrored is seen else logits.flip(3)
                    logits = interpolate_by_hand(logits, scale, (height, width))
                    views.append(logits.softmax(1)[0])
            expected = torch.stack(views).mean(0)
            torch.testing.assert_close(found[index], expected, rtol=1e-4, atol=1e-6)
            assert found[index].argmax(0).tolist() == expected.argmax(0).tolist()

    @pytest.mark.parametrize("scale", [0.5, 0.75])
    def test_smaller_images_are_smoothed_as_in_training(self, scale: float) -> None:
        """Compare with Pillow, with which training rescales, at the same positions."""
        pixels = np.random.default_rng(0).integers(0, 256, (61, 61, 3), dtype=np.uint8)
        seen: list[torch.Tensor] = []

        class Watching(Segmenter):
            colours = IMAGENET

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                seen.append(images)
                return images

        compute_probabilities(Watching(), pixels[None], Inference(scales=(scale,)))
        count = seen[0].shape[-1] - 2  # without the first and the last position
        start = 0.5 + 0.5 / scale
        box = (start, start, start + count / scale, start + count / scale)
        trained = resize(pixels, (count, count), box, Image.Resampling.BILINEAR)
        expected = IMAGENET.normalise(torch.from_numpy(trained.transpose(2, 0, 1)[None].copy()))
        found = seen[0].cpu()[..., 1:-1, 1:-1]
        torch.testing.assert_close(found, expected, rtol=0, atol=1.1 / 255 / 0.224)

    def test_a_mirror_image_gives_the_mirror_image(
        self, experiment: Experiment, val: Split
    ) -> None:
        """Check that with flip the network treats left and right alike."""
        torch.manual_seed(0)
        model = build_model("fcn", experiment.arguments, num_classes=6).eval()
        image = val.images.reshape(-1)[: 3 * 48 * 48].reshape(48, 48, 3)
        pair = [image, image[:, ::-1]]
        split = Split(
            ["a", "b"],
            [(48, 48)] * 2,
            val.classes,
            np.concatenate([p.ravel() for p in pair]),
            np.zeros(2 * 48 * 48, dtype=np.uint8),
            [0, 48 * 48],
        )
        one, other = predict_probabilities(model, split, range(2), "", Inference(flip=True))
        torch.testing.assert_close(one, other.flip(-1), rtol=1e-4, atol=1e-6)
        plain, mirrored = predict_probabilities(model, split, range(2), "", ONE_PASS)
        assert not torch.allclose(plain, mirrored.flip(-1), rtol=1e-3)
