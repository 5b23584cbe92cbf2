"""List of the architectures that ``params.yaml`` may use."""

ARCHITECTURES = (
    "fcn",
    "largefov",
    "aspp_sum",
    "image_pyramid",
    "encoder_decoder",
    "cascade",
    "aspp",
    "psp",
    "deeplabv3plus",
    "unet",
)
