"""Stage ``prepare``: generate or convert a profile's data, check every pair, pack them."""

from deeplab_bench.data.archives import DOWNLOADS
from deeplab_bench.data.preparation import prepare
from deeplab_bench.data.samples import write_samples
from deeplab_bench.results.files import data_folder, sample_images_file, sample_labels_file
from deeplab_bench.settings.params import load_params


def main(profile: str) -> None:
    folder = data_folder(profile)
    prepare(load_params().profile[profile].data, DOWNLOADS, folder)
    write_samples(folder, sample_images_file(profile), sample_labels_file(profile))
