"""The data sets that ``params.yaml`` may name. To add one, write its file and add it here."""

from typing import Annotated, get_args

from pydantic import Field

from deeplab_bench.data.camvid import CamVidData
from deeplab_bench.data.dataset import DataSet
from deeplab_bench.data.folder import FolderData
from deeplab_bench.data.shapes import ShapesData
from deeplab_bench.data.voc2012 import VocData

Data = Annotated[ShapesData | CamVidData | VocData | FolderData, Field(discriminator="dataset")]

DATA_SETS: dict[str, type[DataSet]] = {
    get_args(data_set.model_fields["dataset"].annotation)[0]: data_set
    for data_set in get_args(get_args(Data)[0])
}
