"""Stage ``audit``: a checkpoint scored by the rules that published code follows."""

from deeplab_bench.files import write_json
from deeplab_bench.params import load_params
from deeplab_bench.paths import audit_file, checkpoint_file, data_folder
from deeplab_bench.protocol_audit import audit


def main(profile: str, model: str, seed: int) -> None:
    result = audit(
        load_params().experiment(profile, model),
        seed,
        data_folder(profile),
        checkpoint_file(profile, model, seed),
    )
    write_json(audit_file(profile, model, seed), result)
