from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recaption.config.schema import Config
from recaption.errors import UserError
from recaption.launch.plan import data_name, inputs, select, slices
from recaption.run.record import InputShard
from recaption.shard.patterns import Patterns, braces, expand


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/d/x.tar", ["/d/x.tar"]),
        ("/d/{00..02}.tar", ["/d/00.tar", "/d/01.tar", "/d/02.tar"]),
        ("/d/{8..11}.tar", ["/d/8.tar", "/d/9.tar", "/d/10.tar", "/d/11.tar"]),
        ("/d/{098..101}", ["/d/098", "/d/099", "/d/100", "/d/101"]),
        ("/{a,b}/{0..1}", ["/a/0", "/a/1", "/b/0", "/b/1"]),
        ("/d/{a,{0..1}}", ["/d/a", "/d/0", "/d/1"]),
        ("s3://b/{a,}x", ["s3://b/ax", "s3://b/x"]),
    ],
)
def test_braces(pattern: str, found: list[str]) -> None:
    assert sorted(braces(pattern)) == sorted(found)


@pytest.mark.parametrize("pattern", ["/d/{5..3}.tar", "/d/{0..99999999999}.tar"])
def test_a_brace_range_that_is_empty_or_endless_is_refused(pattern: str) -> None:
    with pytest.raises(UserError, match=r"data\.shards"):
        expand(pattern)


@given(st.integers(0, 400), st.integers(0, 60), st.integers(1, 6))
def test_a_padded_range_keeps_its_width_and_order(first: int, more: int, width: int) -> None:
    last = first + more
    found = braces(f"{{{first:0{width}d}..{last:0{width}d}}}")
    assert [int(f) for f in found] == list(range(first, last + 1))
    assert all(len(f) == max(width, len(str(int(f)))) for f in found)


def test_a_glob_is_sorted_and_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.tar", "a.tar", "c.txt"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert expand("*.tar") == [str(tmp_path / "a.tar"), str(tmp_path / "b.tar")]


def test_a_list_file_may_hold_patterns_comments_and_urls(tmp_path: Path) -> None:
    (tmp_path / "x.tar").touch()
    listed = tmp_path / "shards.list"
    lines = f"# these\n\n{tmp_path}/*.tar\n  # those\ns3://b/{{0..1}}.tar\n/abs/y.tar\n"
    listed.write_text(lines, "utf-8-sig")
    assert expand(str(listed)) == [
        f"{tmp_path}/x.tar",
        "s3://b/0.tar",
        "s3://b/1.tar",
        "/abs/y.tar",
    ]


def test_a_list_file_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("/d/a.tar\n/d/ü.tar\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"data\.shards=.*x\.txt: line 2 .* not UTF-8"):
        expand(f"{tmp_path}/x.txt")


@pytest.mark.parametrize("ring", [["a.txt"], ["a.txt", "b.list", "c.txt"]])
def test_list_files_that_name_themselves(tmp_path: Path, ring: list[str]) -> None:
    for name, following in zip(ring, [*ring[1:], ring[0]], strict=True):
        (tmp_path / name).write_text(f"/d/x.tar\n{tmp_path}/{following}\n")
    last = rf"{ring[-1]} names .*a\.txt again"
    with pytest.raises(UserError, match=rf"data\.shards=.*a\.txt: .*{last}"):
        expand(f"{tmp_path}/a.txt")


@pytest.mark.parametrize("shards", ["[/d/{a,b}.tar,/d/c.tar]", ["/d/{a,b}.tar", "/d/c.tar"]])
def test_a_list(shards: object) -> None:
    assert expand(shards) == ["/d/a.tar", "/d/b.tar", "/d/c.tar"]


def folder_of(path: Path) -> Path:
    """As img2dataset leaves it: every kind of tar, tables beside them, a folder below."""
    for name in ("a.tar", "b.tgz", "c.tar.gz", "d.tar.xz", "e.tar.zst", "F.TAR"):
        (path / name).touch()
    for name in ("a.parquet", "a_stats.json", "notes.md"):
        (path / name).touch()
    (path / "sub/deep").mkdir(parents=True)
    (path / "sub/g.tar").touch()
    (path / "sub/deep/h.tar").touch()
    return path


TARS = ["F.TAR", "a.tar", "b.tgz", "c.tar.gz", "d.tar.xz", "e.tar.zst"]


@pytest.mark.parametrize("pattern", ["", "/", "/*"])
def test_a_folder_and_a_glob_mean_tars(tmp_path: Path, pattern: str) -> None:
    patterns = Patterns()
    found = expand(f"{folder_of(tmp_path)}{pattern}", patterns)
    assert found == [f"{tmp_path}/{name}" for name in TARS]
    others = "4 others: a.parquet, a_stats.json, notes.md, sub"
    assert patterns.remark() == f"data.shards: passed over what is no tar, {others}"


def test_folders_in_braces_and_lists(tmp_path: Path) -> None:
    folder_of(tmp_path)
    wanted = [f"{tmp_path}/sub/g.tar", f"{tmp_path}/sub/deep/h.tar"]
    assert expand(f"{tmp_path}/{{sub,sub/deep}}") == wanted
    assert expand([f"{tmp_path}/sub", f"file://{tmp_path}/sub/deep"]) == wanted


def test_two_stars_go_down_any_number_of_folders(tmp_path: Path) -> None:
    folder_of(tmp_path)
    deep = [f"{tmp_path}/sub/deep/h.tar", f"{tmp_path}/sub/g.tar"]
    assert expand(f"{tmp_path}/**/*.tar") == [f"{tmp_path}/a.tar", *deep]
    assert expand(f"{tmp_path}/sub/**") == deep


def test_runs_of_0_1_0_keep_their_list(tmp_path: Path) -> None:
    folder_of(tmp_path)
    then = Patterns(every_file=True)
    assert expand(f"{tmp_path}/a*", then) == [
        f"{tmp_path}/a{e}" for e in (".parquet", ".tar", "_stats.json")
    ]
    assert expand(f"{tmp_path}/**/*.tar", then) == [f"{tmp_path}/sub/g.tar"]
    assert then.remark() == ""


def test_a_pattern_without_a_tar_says_what_it_matches(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\*n: matches no tar, but 1 other: a_stats.json"):
        expand(f"{folder_of(tmp_path)}/a*n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: matches no file"):
        expand(f"{tmp_path}/empty")


@pytest.mark.parametrize("shards", ["/nowhere/*.tar", "/nowhere/x.txt", "[]", [], "", " ", [""]])
def test_what_names_no_shard_is_refused(shards: object) -> None:
    with pytest.raises(UserError, match=r"data\.shards"):
        expand(shards)


@pytest.mark.parametrize(
    ("spec", "chosen"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
        ("0-3", [0, 1, 2, 3]),
        ("7", [7]),
        (7, [7]),
        ("0-3,8,9-", [0, 1, 2, 3, 8, 9]),
        ("8-,0", [0, 8, 9]),
        ("2-4,3-5", [2, 3, 4, 5]),
        (" 1 , 2 ", [1, 2]),
    ],
)
def test_select(spec: object, chosen: list[int]) -> None:
    assert select(spec, 10) == chosen


@pytest.mark.parametrize(
    "spec", ["10", "0-10", "10-", "5-3", "x", "-3", "1..2", "", "1,,2", "1-2-3"]
)
def test_a_range_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(UserError, match=r"data\.range"):
        select(spec, 10)


def config_for(shards: object, **data: object) -> Config:
    config = Config()
    config.data.shards = shards
    for name, value in data.items():
        setattr(config.data, name, value)
    return config


def test_inputs_have_names_and_sizes(tmp_path: Path) -> None:
    for i in range(12):
        (tmp_path / f"{i:02d}.tar").write_bytes(b"x" * i)
    found = inputs(config_for(f"{tmp_path}/{{00..11}}.tar"))
    assert [(s.name, s.size) for s in found] == [(f"{i:02d}.tar", i) for i in range(12)]


def test_remote_sizes_are_unknown() -> None:
    (shard,) = inputs(config_for("https://host/x.tar?y=1"))
    assert shard == InputShard("https://host/x.tar?y=1", "x.tar", None)


def test_a_kind_of_url_that_nothing_reads_is_refused() -> None:
    with pytest.raises(UserError, match=r"data\.shards=nosuch://"):
        inputs(config_for(["https://host/x.tar", "nosuch://host/y.tar"]))


def test_every_missing_shard_is_counted(tmp_path: Path) -> None:
    (tmp_path / "0.tar").touch()
    with pytest.raises(UserError, match=r"1\.tar: no such shard and 1 more"):
        inputs(config_for(f"{tmp_path}/{{0..2}}.tar"))


def test_a_shard_named_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "0.tar").touch()
    with pytest.raises(UserError, match="named twice"):
        inputs(config_for([f"{tmp_path}/0.tar", f"{tmp_path}/*.tar"]))


def test_pipes_need_permission() -> None:
    with pytest.raises(UserError, match=r"data\.allow_pipe=true"):
        inputs(config_for("pipe:cat x"))
    assert inputs(config_for("pipe:cat x", allow_pipe=True))[0].name == "00000.tar"


def test_credentials_in_a_url_are_refused_without_repeating_them() -> None:
    with pytest.raises(UserError) as error:
        inputs(config_for("https://me:secret@host/x.tar"))
    assert "secret" not in str(error.value)


@given(st.lists(st.one_of(st.none(), st.integers(0, 10**9)), min_size=1, max_size=40), st.data())
def test_slices_partition_the_shards_evenly(sizes: list[int | None], data: st.DataObject) -> None:
    tasks = data.draw(st.integers(1, len(sizes)))
    shards = [InputShard(f"/{i}.tar", f"{i}.tar", size) for i, size in enumerate(sizes)]
    parts = slices(range(len(shards)), shards, tasks)
    assert len(parts) == tasks
    assert sorted(p for part in parts for p in part) == list(range(len(shards)))
    assert all(part and part == sorted(part) for part in parts)
    if None not in sizes:
        loads = [sum(sizes[p] + 1 for p in part) for part in parts]  # type: ignore[operator]
        bound = max(max(s + 1 for s in sizes if s is not None), sum(loads) / tasks)
        assert max(loads) <= 2 * bound


@pytest.mark.parametrize(
    ("first", "name"),
    [
        ("/data/coyo/00000.tar", "coyo"),
        ("s3://bucket/my set/00000.tar", "my-set"),
        ("https://host/laion/00000.tar?x=/y/z", "laion"),
        ("/00000.tar", "data"),
        ("pipe:cat /a/b.tar", "data"),
        ("/d/.hidden/0.tar", "hidden"),
    ],
)
def test_data_name(first: str, name: str) -> None:
    assert data_name(first) == name
