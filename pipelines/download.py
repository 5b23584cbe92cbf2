"""Stage ``download``: fetch and verify a profile's archives."""

from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.preparation import download
from deeplab_bench.files import write_json
from deeplab_bench.params import load_params
from deeplab_bench.paths import download_record


def main(profile: str) -> None:
    data = load_params().profile[profile].data
    write_json(download_record(profile), download(data, DOWNLOADS))
