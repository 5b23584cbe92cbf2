"""Stage ``audit``: a checkpoint scored by the rules that published code follows."""

from deeplab_bench.evaluation.protocol_audit import audit
from deeplab_bench.results.files import audit_file, checkpoint_file, data_folder, experiment_file
from deeplab_bench.settings.schema import Experiment, read_settings
from deeplab_bench.writing import write_json


def main(profile: str, model: str, seed: int) -> None:
    result = audit(
        read_settings(experiment_file(profile, model), Experiment),
        seed,
        data_folder(profile),
        checkpoint_file(profile, model, seed),
    )
    write_json(audit_file(profile, model, seed), result)
