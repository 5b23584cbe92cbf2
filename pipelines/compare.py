"""Command ``compare``: two versions of the committed results, row by row."""

from pathlib import Path
from typing import Annotated

from deeplab_bench.report.formats import escape_markdown
from deeplab_bench.verification.versions import (
    VersionError,
    compare_versions,
    list_profiles,
    read_version,
)
from deeplab_bench.writing import write_bytes


def main(
    before: Annotated[str, "the earlier version: a tag, a branch or a commit"],
    after: Annotated[str, "the later version, such as `HEAD`"],
    *,
    profile: Annotated[str, "default: all profiles that both versions have"] = "",
    out: Annotated[str, "a Markdown file to write, too"] = "",
) -> None:
    """
    Raises:
        GitError: a version is not there.
        VersionError: a version has no results of the profile.
    """
    common = [name for name in list_profiles(before) if name in list_profiles(after)]
    chosen = [profile] if profile else common
    if not chosen:
        raise VersionError(f"{before} and {after} have results of no common profile")
    text = "\n\n".join(render(name, before, after) for name in chosen)
    print(text)
    if out:
        write_bytes(Path(out), f"{text}\n".encode())


def render(profile: str, before: str, after: str) -> str:
    rows = compare_versions(read_version(before, profile), read_version(after, profile))
    table = rows.map(escape_markdown).to_markdown(index=False, disable_numparse=True)
    return f"## {profile}: {before} to {after}\n\n{table}"
