from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recaption.errors import UserError
from recaption.run.output_names import output_names


@pytest.mark.parametrize(
    ("shard", "name"),
    [
        ("/d/00000.tar", "00000.tar"),
        ("/d/a.b.tar", "a.b.tar"),
        ("/d/x.tgz", "x.tar"),
        ("/d/x.tar.gz", "x.tar"),
        ("/d/x.tar.xz", "x.tar"),
        ("/d/x.tar.zst", "x.tar"),
        ("/d/x.TAR", "x.tar"),
        ("/d/noextension", "noextension.tar"),
        ("https://host/a/b.tar?token=x.tar", "b.tar"),
        ("s3://bucket/set/00007.tar", "00007.tar"),
        ("hf://datasets/user/set/00007.tar.gz", "00007.tar"),
        ("pipe:aws s3 cp s3://b/x.tar -", "00000.tar"),
    ],
)
def test_name_of_one_input(shard: str, name: str) -> None:
    assert output_names([shard]) == [name]


def test_pipes_get_their_position() -> None:
    assert output_names(["/d/a.tar", "pipe:cat b", "pipe:cat c"]) == [
        "a.tar",
        "00001.tar",
        "00002.tar",
    ]


def test_positions_are_padded_so_that_names_sort() -> None:
    names = output_names([f"pipe:cat {i}" for i in range(100_001)])
    assert names == sorted(names)


def test_colliding_names_get_the_path_below_the_common_folder() -> None:
    shards = ["/d/set/part-1/00000.tar", "/d/set/part-2/00000.tar", "/d/set/part-2/00001.tar"]
    assert output_names(shards) == ["part-1-00000.tar", "part-2-00000.tar", "00001.tar"]


def test_hosts_tell_colliding_urls_apart() -> None:
    assert output_names(["https://a/x.tar", "https://b/x.tar"]) == ["a-x.tar", "b-x.tar"]


@pytest.mark.parametrize(
    "shards",
    [
        ["/d/x.tar", "/d/x.tar.gz"],
        ["/d/a/b/x.tar", "/d/a-b/x.tar"],
        ["pipe:cat x", "/d/00000.tar"],
        ["https://h/x.tar?part=1", "https://h/x.tar?part=2"],
    ],
)
def test_names_that_still_collide_are_refused_with_both(shards: list[str]) -> None:
    with pytest.raises(UserError) as error:
        output_names(shards)
    assert all(shard in str(error.value) for shard in shards)


def test_an_input_without_a_file_name_is_refused() -> None:
    with pytest.raises(UserError, match="no file name"):
        output_names(["https://host/folder/"])


part = st.text("ab-.", min_size=1, max_size=3).filter(lambda p: p.strip("."))


@given(st.lists(st.tuples(part, part, part), min_size=1, max_size=6, unique=True))
def test_names_are_distinct_plain_file_names_or_refused(paths: list[tuple[str, str, str]]) -> None:
    shards = ["/" + "/".join(p) + ".tar" for p in paths]
    try:
        names = output_names(shards)
    except UserError:
        return
    assert len(set(names)) == len(shards)
    assert all(n.endswith(".tar") and "/" not in n for n in names)
