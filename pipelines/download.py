"""Stage ``download``: fetch and verify a profile's archives."""

from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.preparation import download
from deeplab_bench.results.files import download_record
from deeplab_bench.settings.params import load_params
from deeplab_bench.writing import write_json


def main(profile: str) -> None:
    data = load_params().profile[profile].data
    write_json(download_record(profile), download(data, DOWNLOADS))
