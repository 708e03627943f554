"""What can be known to be missing before hours are spent: space for what is still to come.

That pools fit on the cluster is checked in `jobs.executors.ray.placement`, that the workers' packages are the driver's
when a worker starts (`jobs.executors.ray.driver`), and that the run folder can be written when the run is opened,
before Ray is started.
"""

from __future__ import annotations

from collections.abc import Iterable

from gazetteer.data.runs.folder import Commit, RunFolder


def space_problem(store: RunFolder, commits: Iterable[Commit], pictures: int) -> str | None:
    """Why `pictures` more will not fit beside what is there, in a sentence; None when they do or nobody can know.

    Args:
        commits: shards that are there, from which the bytes a picture takes are measured.
    """
    free, done = store.free_bytes(), list(commits)
    made = sum(commit.info.get("images", 0) for commit in done)
    if free is None or not made:
        return None
    each = sum(part["bytes"] for commit in done for part in commit.tables.values()) / made
    if each * pictures <= free:
        return None
    return (
        f"No space for the rest: {pictures} more pictures take about {each * pictures / 2**30:.2f} GiB "
        f"({each / 2**20:.2f} MiB each so far), but {store.path} has {free / 2**30:.2f} GiB left; "
        "free some and run the same command again: it resumes."
    )
