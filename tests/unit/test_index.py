"""Strict reading: a shard is read as whole only if it is; with salvage, only what is intact."""

from __future__ import annotations

import io
import os
import random
import tarfile
import tempfile
import tracemalloc
from collections.abc import Iterator
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tars import ended, entry, members_of, plain_members, tar_bytes

from recaption.errors import ShardError
from recaption.shard.index import Index, first_samples, index_shard
from recaption.shard.samples import STRICT, Layout, Sample

ANY = Layout(scattered=True)
LINKS = Layout(links=True)
SAMPLES = 100
WHOLE = tar_bytes(plain_members(SAMPLES))
BLOCK = tarfile.BLOCKSIZE


@pytest.fixture
def file() -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile(buffering=0) as opened:
        yield opened


def fill(file: BinaryIO, content: bytes) -> BinaryIO:
    file.seek(0)
    file.truncate()
    file.write(content)
    file.flush()
    return file


def read(content: bytes, layout: Layout = STRICT, *, salvage: bool = False) -> Index:
    with tempfile.TemporaryFile(buffering=0) as opened:
        return index_shard(fill(opened, content), layout, salvage=salvage)


def names(index: Index) -> list[tuple[str, list[str]]]:
    return [(s.key, [m.extension for m in s.members]) for s in index.samples]


@pytest.fixture(scope="module")
def whole() -> Index:
    return read(WHOLE)


def check(file: BinaryIO, whole: Index, *, salvage: bool = True) -> str:
    """Read a damaged shard, with `salvage` both ways.

    Returns `whole`, `refused` or, where a sample got lost, `lost`.
    """
    with open(f"/proc/self/fd/{file.fileno()}", "rb") as fresh:  # nothing is read ahead
        try:
            strict = "whole" if index_shard(fresh).samples == whole.samples else "lost"
        except ShardError:
            strict = "refused"
        if not salvage:
            return strict
        try:
            salvaged = index_shard(fresh, salvage=True)
        except ShardError:
            return strict
    intact = [s for s in salvaged.samples if not s.defect]
    assert intact == whole.samples[: len(intact)], "a sample that is not intact was salvaged"
    if strict == "refused":
        assert salvaged.damaged
        assert len(salvaged.samples) == len(intact) + 1, "the last one is doubted"
    else:
        assert salvaged.samples == whole.samples
    return strict


def truncations(file: BinaryIO, whole: Index, lengths: list[int]) -> None:
    """No cut loses a sample, unless it leaves two zero blocks after the last member."""
    end = len(WHOLE.rstrip(b"\0"))
    end += -end % BLOCK + 2 * BLOCK
    fill(file, WHOLE)
    for i, length in enumerate(sorted(lengths, reverse=True)):
        os.truncate(file.fileno(), length)
        assert check(file, whole, salvage=i % 4 == 0) == (
            "whole" if length >= end else "refused"
        ), length


def test_a_whole_shard_is_read(whole: Index) -> None:
    assert names(whole) == [(f"k{i:05d}", ["png", "txt", "json"]) for i in range(SAMPLES)]
    for sample, wanted in zip(whole.samples, range(SAMPLES), strict=True):
        for member, (_, content) in zip(
            sample.members, members_of(sample.key, wanted), strict=True
        ):
            assert WHOLE[member.offset : member.offset + member.size] == content


def test_every_cut_at_a_block_is_noticed(file: BinaryIO, whole: Index) -> None:
    lengths = list(range(0, len(WHOLE), BLOCK))
    assert len(lengths) > 600
    truncations(file, whole, lengths)


def test_cuts_at_any_byte_are_noticed(file: BinaryIO, whole: Index) -> None:
    truncations(file, whole, random.Random(1).sample(range(len(WHOLE)), 400))


def test_damaged_headers_are_noticed(file: BinaryIO, whole: Index) -> None:
    rng = random.Random(2)
    headers = [m.offset - BLOCK for s in whole.samples for m in s.members]
    fill(file, WHOLE)
    refused = 0
    for i in range(900):
        place = rng.choice(headers) + rng.randrange(BLOCK)
        damaged = bytes([WHOLE[place] ^ rng.randint(1, 255)])
        os.pwrite(file.fileno(), damaged, place)
        result = check(file, whole, salvage=i % 4 == 0)
        assert result != "lost", (place, damaged)
        refused += result == "refused"
        os.pwrite(file.fileno(), WHOLE[place : place + 1], place)
    assert refused > 880  # a byte that ends the checksum's digits says nothing
    assert check(file, whole) == "whole"


def test_a_message_says_where(file: BinaryIO) -> None:
    fill(file, WHOLE[: 10 * BLOCK + 17])
    with pytest.raises(ShardError, match="byte 5120"):
        index_shard(file)
    os.truncate(file.fileno(), 6 * BLOCK)
    with pytest.raises(ShardError, match="byte 3072 without its end blocks"):
        index_shard(file)


@pytest.mark.parametrize("extra", [b"x", WHOLE], ids=["byte", "tar"])
def test_data_after_the_end_is_refused(extra: bytes) -> None:
    with pytest.raises(ShardError, match=f"data after its end, at byte {len(WHOLE)}"):
        read(WHOLE + extra)


@pytest.mark.parametrize("content", [b"", b"<html>", bytes(BLOCK), os.urandom(4096)])
@pytest.mark.parametrize("salvage", [False, True])
def test_what_is_no_tar_is_refused(content: bytes, salvage: bool) -> None:
    with pytest.raises(ShardError):
        read(content, salvage=salvage)


def test_an_empty_tar_has_no_samples() -> None:
    assert read(bytes(2 * BLOCK)).samples == []
    assert read(tar_bytes([])).samples == []


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names(form: int) -> None:
    folder = "d" * 90 if form == tarfile.USTAR_FORMAT else "/".join(["sub" * 20] * 6)
    key = f"{folder}/{'k' * 80}"
    assert names(read(tar_bytes(members_of(key, 1), form))) == [(key, ["png", "txt", "json"])]


def test_names_in_other_scripts() -> None:
    content = tar_bytes(members_of("bilder/größe 画像", 1), tarfile.PAX_FORMAT)
    assert [s.key for s in read(content).samples] == ["bilder/größe 画像"]


def test_a_key_ends_at_the_first_dot_of_the_base_name() -> None:
    members = [("v1.0/a.b/x.jpg", b"1"), ("v1.0/a.b/x.seg.png", b"2"), ("v1.0/a.b/y.jpg", b"3")]
    wanted = [("v1.0/a.b/x", ["jpg", "seg.png"]), ("v1.0/a.b/y", ["jpg"])]
    assert names(read(tar_bytes(members))) == wanted


def test_members_outside_samples_are_counted() -> None:
    files = [("README", b"1"), (".hidden.jpg", b"2"), ("a/.DS_Store", b"3"), ("a/k.jpg", b"4")]
    folder = entry("a/", kind=tarfile.DIRTYPE)
    index = read(folder + tar_bytes(files))
    assert names(index) == [("a/k", ["jpg"])]
    assert index.skipped == 4


def test_a_global_pax_header_is_no_member() -> None:
    file = io.BytesIO()
    pax = {"comment": "x"}
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers=pax) as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    assert names(read(file.getvalue())) == [("a", ["jpg"])]


ODD = {
    "a symbolic link": entry("b.jpg", kind=tarfile.SYMTYPE, linkname="/etc/passwd"),
    "a hard link": entry("b.jpg", kind=tarfile.LNKTYPE, linkname="a.png"),
    "a device": entry("b.jpg", kind=tarfile.CHRTYPE),
    "a FIFO": entry("b.jpg", kind=tarfile.FIFOTYPE),
    "a sparse file": entry("b.jpg", b"data", pax_headers={"GNU.sparse.size": "9000"}),
    "the unknown type b'Q'": entry("b.jpg", b"data", kind=b"Q"),
    "not UTF-8": entry("b\udce9.jpg", b"data", form=tarfile.USTAR_FORMAT),
    "a zero byte": entry("b.jpg", b"data", pax_headers={"path": "b\0.jpg"}),
}


@pytest.mark.parametrize("what", ODD)
def test_odd_members_are_refused_by_name_or_cost_their_sample(what: str) -> None:
    before, after = (tar_bytes(members_of(k, i))[: 6 * BLOCK] for i, k in enumerate("ac"))
    content = ended(before, ODD[what], after)
    with pytest.raises(ShardError, match=what) as refusal:
        read(content)
    assert "'b" in str(refusal.value)
    salvaged = read(content, salvage=True)
    assert salvaged.damaged == ""
    first, odd, last = salvaged.samples
    assert (first.key, first.defect, last.key, last.defect) == ("a", "", "c", "")
    assert what in odd.defect
    assert odd.members == ()
    odd.key.encode()


def test_a_gnu_sparse_member_is_refused() -> None:
    info = tarfile.TarInfo("b.jpg")
    info.size, info.type = 512, tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[386:410] = b"%011o\0%011o\0" % (0, 512)
    head[483:495] = b"%011o\0" % 4096
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    with pytest.raises(ShardError, match="a sparse file"):
        read(ended(bytes(head) + bytes(512), tar_bytes(members_of("c", 1))[: 6 * BLOCK]))


HOSTILE = {
    "pax header of 8 GiB": entry("././@PaxHeader", kind=tarfile.XHDTYPE, size=8 << 30),
    "long name of 8 GiB": entry("././@LongLink", kind=tarfile.GNUTYPE_LONGNAME, size=8 << 30),
    "headers in headers": entry("x", b"n" * 90, kind=tarfile.GNUTYPE_LONGNAME) * 5000,
    "negative size": entry("a.jpg", form=tarfile.GNU_FORMAT, size=-1024),
    "size of an exabyte": entry("a.jpg", form=tarfile.GNU_FORMAT, size=1 << 60),
    "pax size that is none": entry("a.jpg", b"x" * 600, pax_headers={"size": "many"}),
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("salvage", [False, True])
def test_hostile_headers_are_refused(what: str, salvage: bool) -> None:
    with pytest.raises(ShardError):
        read(ended(HOSTILE[what]), salvage=salvage)


def piece(key: str, *extensions: str) -> list[tuple[str, bytes]]:
    return [(f"{key}.{e}", f"{key} {e}".encode()) for e in extensions]


def test_a_repeated_key() -> None:
    content = tar_bytes(piece("a", "jpg", "txt") + piece("b", "jpg") + piece("a", "jpg", "txt"))
    with pytest.raises(ShardError, match=r"key 'a' appears twice \(again at byte 3072\)"):
        read(content)
    first, second, again = read(content, salvage=True).samples
    assert [first.key, second.key, again.key] == ["a", "b", "a@3584"]
    assert (first.defect, second.defect) == ("", "")
    assert "appears twice" in again.defect


def test_interleaved_samples() -> None:
    content = tar_bytes([m for e in ("jpg", "txt") for k in "ab" for m in piece(k, e)])
    with pytest.raises(ShardError, match="key 'a' appears twice"):
        read(content)
    samples = read(content + b"", salvage=True).samples
    assert [s.key for s in samples] == ["a", "b", "a@2560", "b@3584"]
    assert all(s.defect for s in samples), "neither piece is a whole sample"


def test_a_member_that_is_there_twice() -> None:
    content = tar_bytes([*piece("a", "jpg"), *piece("b", "jpg", "txt", "JPG"), *piece("c", "jpg")])
    with pytest.raises(ShardError, match=r"member 'b\.JPG' appears twice"):
        read(content)
    defects = {s.key: s.defect for s in read(content, salvage=True).samples}
    assert list(defects) == ["a", "b", "c"]
    assert defects["a"] == defects["c"] == ""
    assert "b.JPG" in defects["b"]


def test_the_digest_tells_shards_apart() -> None:
    shards = [plain_members(3), plain_members(4), [("a.jpg", b"12")], [("a.jpg", b"123")]]
    digests = {read(tar_bytes(members)).digest for members in shards}
    assert len(digests) == len(shards)
    assert read(tar_bytes(shards[0])).digest == read(tar_bytes(shards[0])).digest


def test_image_members_by_extension() -> None:
    sample = Sample("k", read(tar_bytes(piece("k", "txt", "PNG", "jpg"))).samples[0].members)
    found = [sample.find("jpg", "png"), sample.find("png"), sample.find("webp")]
    assert [m and m.extension for m in found] == ["jpg", "PNG", None]


@given(st.integers(0, 40), st.randoms(use_true_random=False))
def test_members_in_any_order_are_the_same_samples(count: int, rng: random.Random) -> None:
    members = [m for i in range(count) for m in members_of(f"k{i}", i)[: rng.randint(1, 3)]]
    shuffled = rng.sample(members, len(members))
    content = tar_bytes(shuffled)
    found = read(content, ANY, salvage=rng.random() < 0.5)
    assert [s.key for s in found.samples] == list({n.partition(".")[0]: 0 for n, _ in shuffled})
    read_back = {
        f"{s.key}.{m.extension}": content[m.offset : m.offset + m.size]
        for s in found.samples
        for m in s.members
    }
    assert read_back == dict(members)
    for sample in found.samples:
        assert [m.offset for m in sample.members] == sorted(m.offset for m in sample.members)
    ordered = tar_bytes(members)
    assert read(ordered, ANY) == read(ordered), "adjacent ones are read as ever"


def test_what_is_repeated_anywhere_is_refused_or_costs_its_sample() -> None:
    members = [*piece("a", "jpg"), *piece("b", "jpg"), *piece("a", "txt"), *piece("a", "JPG")]
    content = tar_bytes([*members, *piece("b", "txt")])
    with pytest.raises(ShardError, match=r"member 'a\.JPG' appears twice \(again at byte 3072\)"):
        read(content, ANY)
    a, b = read(content, ANY, salvage=True).samples
    assert (a.key, a.members) == ("a", ())
    assert "a.JPG" in a.defect
    assert (b.defect, [m.extension for m in b.members]) == ("", ["jpg", "txt"])


def test_an_odd_member_anywhere_costs_its_own_sample() -> None:
    odd = [entry("README", kind=tarfile.SYMTYPE, linkname="x"), entry("b.txt", kind=b"Q")]
    parts = (tar_bytes(piece(k, "jpg"))[: 2 * BLOCK] for k in "abc")
    content = ended(*parts, *odd, tar_bytes(piece("a", "txt"))[: 2 * BLOCK])
    found = read(content, ANY, salvage=True)
    assert [(s.key, bool(s.defect)) for s in found.samples] == [("a", 0), ("b", 1), ("c", 0)]
    assert names(found)[0] == ("a", ["jpg", "txt"])
    with pytest.raises(ShardError, match="symbolic link"):
        read(content, ANY)


@pytest.mark.parametrize("cut", [9, 25, 32])
def test_of_a_cut_shard_in_any_order_nothing_is_certain(cut: int) -> None:
    members = [m for e in ("jpg", "txt") for k in "abcdefgh" for m in piece(k, e)]
    content = tar_bytes(members)[: cut * BLOCK]
    with pytest.raises(ShardError, match="certainly intact"):
        read(content, ANY, salvage=True)


def test_a_sample_of_many_members() -> None:
    many = piece("k", *(f"x{i}" for i in range(300)))
    for layout in (STRICT, ANY):
        assert len(read(tar_bytes(many), layout).samples[0].members) == 300
        for again in ("X0", "X20", "x299"):
            with pytest.raises(ShardError, match=f"member 'k.{again}' appears twice"):
                read(tar_bytes([*many, (f"k.{again}", b"")]), layout)


def hard_link(name: str, target: str) -> bytes:
    return entry(name, kind=tarfile.LNKTYPE, linkname=target)


@pytest.mark.parametrize("layout", [LINKS, Layout(scattered=True, links=True)])
def test_a_hard_link_is_the_member_it_names(layout: Layout) -> None:
    first = tar_bytes([*piece("a", "jpg", "txt"), ("blob", b"alone")])[: 6 * BLOCK]
    links = [hard_link("b.jpg", "a.jpg"), hard_link("b.txt", "b.jpg"), hard_link("c.jpg", "blob")]
    content = ended(first, *links)
    found = read(content, layout)
    assert names(found) == [("a", ["jpg", "txt"]), ("b", ["jpg", "txt"]), ("c", ["jpg"])]
    a, b, c = found.samples
    assert [(m.offset, m.size) for m in b.members] == [(a.members[0].offset, 5)] * 2
    assert content[c.members[0].offset :][: c.members[0].size] == b"alone"
    with pytest.raises(ShardError, match="a hard link"):
        read(content, Layout(layout.scattered))
    other = ended(first, hard_link("b.jpg", "a.txt"), *links[1:])
    assert read(other, layout).digest != found.digest


@pytest.mark.parametrize("layout", [LINKS, Layout(scattered=True, links=True)])
@pytest.mark.parametrize("target", ["later.jpg", "a.JPG", "nowhere", "b.jpg", "/etc/passwd", ""])
def test_a_hard_link_to_nothing_earlier_is_refused(target: str, layout: Layout) -> None:
    first = tar_bytes(piece("a", "jpg"))[: 2 * BLOCK]
    last = tar_bytes(piece("later", "jpg"))[: 2 * BLOCK]
    content = ended(first, hard_link("b.jpg", target), last)
    with pytest.raises(ShardError, match=r"'b\.jpg' is a hard link to no earlier member"):
        read(content, layout)
    found = read(content, layout, salvage=True).samples
    assert [(s.key, bool(s.defect)) for s in found] == [("a", 0), ("b", 1), ("later", 0)]


def test_a_link_to_what_is_no_file_is_not_intact() -> None:
    odd = entry("a.jpg", kind=tarfile.SYMTYPE, linkname="/etc/passwd")
    content = ended(odd, hard_link("b.jpg", "a.jpg"), tar_bytes(piece("c", "jpg"))[: 2 * BLOCK])
    for layout in (LINKS, Layout(scattered=True, links=True)):
        found = read(content, layout, salvage=True).samples
        assert [(s.key, bool(s.defect)) for s in found] == [("a", 1), ("b", 1), ("c", 0)]


def test_the_first_samples_are_read_without_the_rest(file: BinaryIO, whole: Index) -> None:
    fill(file, WHOLE)
    assert first_samples(file, STRICT, 7) == whole.samples[:7]
    assert first_samples(file, ANY, 7) == whole.samples[:7]
    assert first_samples(file, STRICT, 1000) == whole.samples
    os.truncate(file.fileno(), len(WHOLE) // 2)
    assert first_samples(file, STRICT, 7) == whole.samples[:7]
    with pytest.raises(ShardError):
        first_samples(file, STRICT, 1000)


@pytest.mark.parametrize("layout", [STRICT, Layout(scattered=True, links=True)])
def test_the_memory_of_an_index_is_bounded(file: BinaryIO, layout: Layout) -> None:
    """By the number of members, of which there may be two millions: well below a GB."""
    count = 3000
    names = [f"folder/key_{i:08d}.{e}" for e in ("jpg", "json") for i in range(count // 2)]
    if not layout.scattered:
        names.sort()
    fill(file, tar_bytes((name, b"") for name in names))
    tracemalloc.start()
    try:
        assert len(index_shard(file, layout).samples) == count // 2
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    read_at_once = 1 << 20  # behind the last member
    assert (peak - read_at_once) / count < 350
