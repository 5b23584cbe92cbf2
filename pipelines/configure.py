"""Stage ``configure``: params.yaml to the settings of all that is to run, resolved."""

from deeplab_bench.configuration import write_settings
from deeplab_bench.params import load_params


def main(profile: str) -> None:
    write_settings(load_params(), profile)
