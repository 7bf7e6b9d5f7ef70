"""Makes the folders of a run directory and gives them to the group in output.group."""

from __future__ import annotations

import grp
import os
import stat
import sys
from pathlib import Path

from recaption.errors import bad_value
from recaption.run.paths import RunPaths


def make_folders(paths: RunPaths, group: str | None = None) -> None:
    """Make what a run needs: all of it for a new one, empty folders that a copy left out for others.

    What is made in a folder of a `group` (output.group) is the group's; what that may do is up to the
    umask. Raises UserError for a group that is not there, or that this user is not in.
    """
    folders = [paths.root, *paths.folders()]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    if group is not None:
        number = group_number(group)
        for folder in folders:
            _give(folder, group, number)


def inherited_group(parent: RunPaths) -> str | None:
    """The group of a run's files, to which files made from them should belong, too; None if none.

    Where this user cannot give files to it, that is said.
    """
    there = parent.root.stat()
    if not there.st_mode & stat.S_ISGID:
        return None
    (group,) = _names([there.st_gid])
    ours = os.geteuid() == 0 or there.st_gid in {os.getegid(), *os.getgroups()}
    if not ours or group.isdigit():  # has no name here
        text = (
            f"{parent.root} belongs to group {group}, which you are not in; what is made does not"
        )
        print(f"warning: {text}", file=sys.stderr)
        return None
    return group


def group_number(group: str) -> int:
    """Raises UserError for a group that is not there."""
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        yours = ", ".join(sorted(_names(os.getgroups())))
        raise bad_value("output.group", group, f"no such group here; yours are {yours}") from None


def _give(folder: Path, group: str, number: int) -> None:
    there = folder.stat()
    if there.st_gid == number and there.st_mode & stat.S_ISGID:
        return
    try:
        os.chown(folder, -1, number)
        folder.chmod(stat.S_IMODE(there.st_mode) | stat.S_ISGID)
    except PermissionError:
        reason = f"{folder} cannot be given to it: that takes its owner, who has to be in the group"
        raise bad_value("output.group", group, reason) from None


def _names(numbers: list[int]) -> set[str]:
    names = set()
    for number in numbers:
        try:
            names.add(grp.getgrgid(number).gr_name)
        except KeyError:
            names.add(str(number))
    return names
