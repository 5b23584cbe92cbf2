"""Stage ``prepare``: generate or convert a profile's data, check every pair, pack them."""

from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.dataset import DataSettings, build_data_set
from deeplab_bench.data.preparation import prepare
from deeplab_bench.data.samples import write_samples
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.stage_settings import read_settings


def main(profile: str) -> None:
    files = ProfileFiles(profile)
    settings = read_settings(files, "prepare", schema=DataSettings)
    prepare(build_data_set(settings.data), DOWNLOADS, files.data)
    write_samples(files.data, files.sample_images, files.sample_labels)
