"""Stage ``download``: fetch and verify a profile's archives."""

from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.preparation import download
from deeplab_bench.data.registry import DataSettings
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.stage_settings import read_settings
from deeplab_bench.writing import write_json


def main(profile: str) -> None:
    files = ProfileFiles(profile)
    data = read_settings(files.settings("download"), "download", DataSettings).data
    write_json(files.download_record, download(data, DOWNLOADS))
