"""Models' blocks of params.yaml: inheritance, and changes for one profile."""

import json
from collections.abc import Collection, Mapping
from typing import Any

from deeplab_bench.errors import suggest_nearest
from deeplab_bench.settings.base import SettingsError

Blocks = Mapping[str, Mapping[str, Any]]


class ParamsError(SettingsError):
    """A mistake in params.yaml; the message is one line for its author."""


def complete_blocks(blocks: Blocks) -> dict[str, dict[str, Any]]:
    """Complete every model's block with what it inherits, and remove the key ``extends``.

    Raises:
        ParamsError: a block extends an unknown one, itself, or one that inherits from it.
    """
    return {model: complete_block(model, blocks) for model in blocks}


def complete_block(model: str, blocks: Blocks) -> dict[str, Any]:
    own = dict(blocks[model])
    if "extends" not in own:
        return own
    parent, where = own.pop("extends"), f"models.{model}.extends"
    heirs = find_heirs(model, blocks)
    others = [name for name in blocks if name not in heirs]
    if parent in heirs:
        problem = "is this block" if parent == model else "inherits from this block"
        raise ParamsError(f"{where}: {parent!r} {problem}{suggest_nearest(parent, others)}")
    inherited = complete_block(require_known(parent, others, where), blocks)
    inherited.pop("published", None)  # a published row is of one model alone
    return merge(inherited, own)


def find_heirs(model: str, blocks: Blocks) -> list[str]:
    """Find all models that inherit from a model, itself included."""
    heirs = [model]
    for heir in heirs:
        heirs += [
            name
            for name, block in blocks.items()
            if block.get("extends") == heir and name not in heirs
        ]
    return heirs


def merge(lower: Mapping[str, Any], upper: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two mappings key by key, at any depth; other values come from ``upper``."""
    merged = {**lower, **upper}
    for key in lower.keys() & upper.keys():
        if isinstance(lower[key], dict) and isinstance(upper[key], dict):
            merged[key] = merge(lower[key], upper[key])
    return merged


def apply_profile(
    profile: str, block: Mapping[str, Any], profiles: Collection[str], where: str
) -> dict[str, Any]:
    """Merge a block's settings for this profile, under ``per_profile``, into the block."""
    rest = dict(block)
    where = f"{where}.per_profile"
    per_profile = require_mapping(rest.pop("per_profile", {}), where)
    for name in per_profile:
        require_known(name, profiles, where)
    own = require_mapping(per_profile.get(profile, {}), f"{where}.{profile}")
    if "extends" in own:
        raise ParamsError(f"{where}.{profile}.extends: only a model's whole block can extend one")
    return merge(rest, own)


def require_mapping(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ParamsError(f"{where} is {json.dumps(value)}: it should be a mapping")
    return value


def require_known(name: Any, valid: Collection[str], where: str) -> str:
    if not isinstance(name, str) or name not in valid:
        raise ParamsError(f"{where}: {name!r} is not defined{suggest_nearest(str(name), valid)}")
    return name
