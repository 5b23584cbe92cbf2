"""The base class of all settings, its error, and the ranges that many settings share."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from deeplab_bench.errors import UserError

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class SettingsError(UserError):
    """Invalid settings; the message is one line that names the key."""


class Settings(BaseModel):
    """A section of settings: frozen, strictly typed, without unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
