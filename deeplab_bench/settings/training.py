"""The training schedule."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from deeplab_bench.settings.base import Fraction, PositiveFloat, PositiveInt, Settings


class Training(Settings):
    """The schedule of SGD, its loss and its augmentation.

    ``crop_size`` is (height, width) in pixels. The best sides are k * ``output_stride`` + 1:
    networks do not pad them (see ``models.grid``). ``lr_policy`` is ``poly``, ``step`` or
    ``fixed``. With ``poly`` the learning rate decreases to zero over all iterations. With ``step``
    it is multiplied by ``step_factor`` after every ``step_iterations`` iterations. In the first
    ``warmup_iterations`` the learning rate rises to ``base_lr`` by equal steps (Goyal et al., 2017,
    Section 2.2); the policy begins after them.
    ``head_lr_multiplier`` multiplies the rate of layers without pretrained weights,
    ``bias_lr_multiplier`` that of the biases of convolutions. A bias of the head has both.

    ``weight_decay`` applies to the weights of convolutions. With ``decay_bias`` it also applies to
    their biases, with ``decay_norm`` to the scales and shifts of batch normalisation.
    ``batch_norm_momentum`` is the weight of the new batch, as in torch: 0.0003 is the paper's decay
    of 0.9997.

    ``loss_resolution`` is the size at which the loss is computed: that of the ``image``, or that of
    the network's ``logits``, for which the labels are subsampled. ``class_balancing`` is an
    exponent: the loss weight of a class is (median frequency of all classes / its own frequency) to
    this power. With 0 all weights are 1; 1 is SegNet's median frequency balancing on CamVid.

    ``weights`` is ``none``, ``imagenet``, ``pretrained`` (those of the stage ``pretrain``), or the
    path of a classification network's state dict. With ``zero_init_residual``, residual units that
    get no such weights of their own begin as identities, cascaded blocks among them: the scale of
    their last batch normalisation is zero (Goyal et al., Section 5.1).
    ``compile``: whether to compile network and loss with ``torch.compile``.
    """

    iterations: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    crop_size: tuple[PositiveInt, PositiveInt]
    base_lr: PositiveFloat
    lr_policy: Literal["poly", "step", "fixed"] = "poly"
    poly_power: Annotated[float, Field(ge=0)] = 0.9
    step_iterations: PositiveInt = 2000
    step_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup_iterations: Annotated[int, Field(ge=0)] = 0
    head_lr_multiplier: PositiveFloat = 1.0
    bias_lr_multiplier: PositiveFloat = 1.0
    momentum: Fraction
    weight_decay: Annotated[float, Field(ge=0)]
    decay_bias: bool = True
    decay_norm: bool = True
    batch_norm: Literal["train", "frozen"] = "train"
    batch_norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.1
    weights: str = "none"
    zero_init_residual: bool = False
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

    @model_validator(mode="after")
    def _warmup_ends(self) -> "Training":
        if self.warmup_iterations >= self.iterations:
            raise ValueError(
                f"warmup_iterations {self.warmup_iterations} is not below iterations "
                f"{self.iterations}"
            )
        return self
