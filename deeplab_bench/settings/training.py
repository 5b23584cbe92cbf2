"""The training schedule."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from deeplab_bench.settings.base import Fraction, PositiveFloat, PositiveInt, Settings


class Training(Settings):
    """The schedule of SGD, its loss and its augmentation.

    ``crop_size`` is (height, width) in pixels. ``lr_policy`` is ``poly``, which goes to zero over
    all iterations, ``step``, which multiplies the rate by ``step_factor`` every
    ``step_iterations``, or ``fixed``. ``head_lr_multiplier`` applies to layers without pretrained
    weights, ``bias_lr_multiplier`` to the biases of convolutions; a bias of the head has both.

    ``weight_decay`` applies to the weights of convolutions, with ``decay_bias`` to their biases
    too, and with ``decay_norm`` to the scales and shifts of batch normalisation.
    ``batch_norm_momentum`` is torch's, the weight of the new batch: the paper's decay of 0.9997 is
    0.0003.

    ``loss_resolution``: the loss is computed at the size of the image, or at the size of the
    network's ``logits`` with subsampled labels. ``class_balancing`` is an exponent: the loss weight
    of a class is (median frequency of all classes / its own frequency) to this power. With 0 all
    weights are 1; 1 is SegNet's median frequency balancing on CamVid.

    ``weights`` is ``none``, ``imagenet``, or the path of a classification network's state dict.
    ``compile``: compile network and loss with ``torch.compile``.
    """

    iterations: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    crop_size: tuple[PositiveInt, PositiveInt]
    base_lr: PositiveFloat
    lr_policy: Literal["poly", "step", "fixed"] = "poly"
    poly_power: Annotated[float, Field(ge=0)] = 0.9
    step_iterations: PositiveInt = 2000
    step_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    head_lr_multiplier: PositiveFloat = 1.0
    bias_lr_multiplier: PositiveFloat = 1.0
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    decay_bias: bool = True
    decay_norm: bool = True
    batch_norm: Literal["train", "frozen"] = "train"
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    weights: str = "none"
    loss_resolution: Literal["image", "logits"] = "image"
    class_balancing: Annotated[float, Field(ge=0, le=1)] = 0.0
    random_scale: tuple[PositiveFloat, PositiveFloat]
    horizontal_flip: bool
    precision: Literal["float32", "bfloat16"]
    compile: bool = False

    @model_validator(mode="after")
    def _scales_ascend(self) -> "Training":
        if self.random_scale[0] > self.random_scale[1]:
            raise ValueError(f"random_scale {list(self.random_scale)} is not [smallest, largest]")
        return self
