"""Stage ``download``: fetch and verify a profile's archives."""

from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.dataset import DataSettings, build_data_set
from deeplab_bench.data.preparation import download
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.stage_settings import read_settings
from deeplab_bench.writing import write_json


def main(profile: str) -> None:
    files = ProfileFiles(profile)
    settings = read_settings(files, "download", schema=DataSettings)
    write_json(files.download_record, download(build_data_set(settings.data), DOWNLOADS))
