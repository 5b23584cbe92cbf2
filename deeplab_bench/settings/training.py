"""The training schedule."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from deeplab_bench.settings.base import Fraction, PositiveFloat, PositiveInt, Settings


class Training(Settings):
    """The schedule of SGD, its loss and its augmentation.

    Warm-up and ``zero_init_residual`` are those of Goyal et al. (2017, Sections 2.2 and 5.1).
    Cascaded blocks are residual units without pretrained weights of their own. ``class_balancing``
    0 gives all classes the weight 1; 1 is SegNet's median frequency balancing on CamVid.
    """

    iterations: PositiveInt
    """Steps of the optimiser."""
    batch_size: Annotated[int, Field(ge=2)]
    """Crops of a step, of all processes together."""
    crop_size: tuple[PositiveInt, PositiveInt]
    """(height, width) in pixels. Sides of k * ``output_stride`` + 1 are not padded."""
    base_lr: PositiveFloat
    """The learning rate before policy and multipliers."""
    lr_policy: Literal["poly", "step", "fixed"] = "poly"
    """``poly``: the rate falls to 0 over all iterations; ``step``: in steps; ``fixed``: stays."""
    poly_power: Annotated[float, Field(ge=0)] = 0.9
    """The exponent of ``poly``."""
    step_iterations: PositiveInt = 2000
    """With ``step``: the iterations between two steps."""
    step_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    """With ``step``: the factor on the rate at each step."""
    warmup_iterations: Annotated[int, Field(ge=0)] = 0
    """First iterations, in which the rate rises to ``base_lr``; the policy comes after."""
    head_lr_multiplier: PositiveFloat = 1.0
    """The factor on the rate of layers without pretrained weights."""
    bias_lr_multiplier: PositiveFloat = 1.0
    """The factor on the rate of biases of convolutions; those of the head have both."""
    momentum: Fraction
    """The momentum of SGD."""
    weight_decay: Annotated[float, Field(ge=0)]
    """The weight decay of convolutions' weights."""
    decay_bias: bool = True
    """Whether it applies to the biases of convolutions, too."""
    decay_norm: bool = True
    """Whether it applies to the scales and shifts of batch normalisation, too."""
    batch_norm: Literal["train", "frozen"] = "train"
    """``frozen`` keeps statistics, scales and shifts as the pretrained weights have them."""
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The weight of the new batch, as in torch; 0.0003 is the paper's decay of 0.9997."""
    weights: str = "none"
    """``none``, ``imagenet``, ``pretrained`` (by stage ``pretrain``), or a state dict's path."""
    zero_init_residual: bool = False
    """Whether residual units without pretrained weights of their own begin as identities."""
    loss_resolution: Literal["image", "logits"] = "image"
    """The size at which the loss is computed: the image's, or the logits' by subsampled labels."""
    class_balancing: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The exponent of (median frequency / frequency of the class), the class's loss weight."""
    random_scale: tuple[PositiveFloat, PositiveFloat]
    """The smallest and the largest factor on an image's size."""
    horizontal_flip: bool
    """Whether half of the crops are mirrored."""
    precision: Literal["float32", "bfloat16"]
    """The precision of the forward pass; weights are float32."""
    compile: bool = False
    """Whether ``torch.compile`` makes kernels of network and loss."""

    @model_validator(mode="after")
    def _scales_ascend(self) -> "Training":
        if self.random_scale[0] > self.random_scale[1]:
            raise ValueError(f"random_scale {list(self.random_scale)} is not [smallest, largest]")
        return self

    @model_validator(mode="after")
    def _warmup_ends(self) -> "Training":
        if self.warmup_iterations >= self.iterations:
            raise ValueError(
                f"warmup_iterations {self.warmup_iterations} is not below iterations "
                f"{self.iterations}"
            )
        return self
