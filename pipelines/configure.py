"""Stage ``configure``: params.yaml and the code to what the stages of each run depend on."""

from deeplab_bench.results.files import code_file
from deeplab_bench.settings.params import load_params
from deeplab_bench.settings.resolve import file_digests, write_settings
from deeplab_bench.writing import write_json

# DVC takes seconds over every stage once each of these, many times over, lists all its files.
OF_EACH_RUN = ("train", "evaluate", "infer", "crf", "audit", "receptive_field", "speed")


def main(profile: str) -> None:
    write_settings(load_params(), profile)
    for stage in OF_EACH_RUN:
        write_json(code_file(profile, stage), file_digests(f"pipelines.{stage}"))
