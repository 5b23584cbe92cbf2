"""Stage ``prepare``: generate or convert a profile's data, check every pair, pack them."""

from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.preparation import prepare
from deeplab_bench.data.registry import DataSettings
from deeplab_bench.data.samples import write_samples
from deeplab_bench.results.files import ProfileFiles
from deeplab_bench.results.stage_settings import read_settings


def main(profile: str) -> None:
    files = ProfileFiles(profile)
    data = read_settings(files.settings("prepare"), "prepare", DataSettings).data
    prepare(data, DOWNLOADS, files.data)
    write_samples(files.data, files.sample_images, files.sample_labels)
