"""Where a shard's bytes come from: whatever breaks on the way, it is never taken for its end."""

from __future__ import annotations

import gzip
import http.server
import json
import lzma
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard
from helpers import launch, launched, refused, rows
from tars import plain_members, tar_bytes

from recaption.errors import ShardError
from recaption.shard import remote, retrying, source
from recaption.shard.compression import decompressed

# fsspec leaves the connections of broken answers to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

LIMIT = 1 << 30
TAR = tar_bytes(plain_members(40))
NOISE = random.Random(5).randbytes(9_000_000)


def zstd_seekable(content: bytes) -> bytes:
    """Two frames with a skippable one before and after, as zstd's seekable format has it."""
    skippable = b"\x5e\x2a\x4d\x18\x04\0\0\0abcd"
    half = len(content) // 2
    frames = [zstandard.compress(content[:half]), zstandard.compress(content[half:])]
    return skippable + b"".join(frames) + skippable


def zstd_stream(content: bytes) -> bytes:
    """One frame that does not tell its size."""
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(content) + compressor.flush()


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "gz members": lambda c: gzip.compress(c[:70_000]) + gzip.compress(c[70_000:]),
    "gz padded": lambda c: gzip.compress(c) + bytes(512),
    "xz": lzma.compress,
    "xz streams": lambda c: lzma.compress(c[:999]) + bytes(8) + lzma.compress(c[999:]),
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "zst streamed": zstd_stream,
    "zst seekable": zstd_seekable,
}


def read(path: Path | str, tmp_path: Path, limit: int = LIMIT) -> bytes:
    target = tmp_path / "spool"
    target.write_bytes(b"")
    source.fetch(str(path), str(target), limit)
    return target.read_bytes()


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_compressed_shards_are_read_whatever_their_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    path.write_bytes(COMPRESSORS[kind](TAR))
    assert source.needs_spool(str(path))
    assert read(path, tmp_path) == TAR


def test_a_plain_shard_is_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar.gz"
    path.write_bytes(TAR)
    assert not source.needs_spool(str(path))


@pytest.mark.parametrize("kind", ["gz", "xz", "zst", "zst streamed"])
def test_a_cut_at_any_byte_is_noticed(kind: str) -> None:
    content = COMPRESSORS[kind](TAR[:20_000])
    for length in range(source.LONGEST_MAGIC, len(content)):
        with pytest.raises(ShardError, match="cut after"):
            b"".join(decompressed(Stream(content[:length])))


@pytest.mark.parametrize("kind", ["gz members", "xz streams", "zst seekable"])
def test_a_cut_in_a_later_member_is_noticed(kind: str) -> None:
    content = COMPRESSORS[kind](TAR[:100_000])
    for length in range(len(content) - 200, len(content)):
        try:
            got = b"".join(decompressed(Stream(content[:length])))
        except ShardError:
            continue
        assert got == TAR[:100_000], "only padding is missing"


@pytest.mark.parametrize("kind", ["gz", "xz", "zst"])
def test_damage_is_noticed(kind: str) -> None:
    content = COMPRESSORS[kind](TAR)
    rng = random.Random(3)
    for _ in range(300):
        place = rng.randrange(source.LONGEST_MAGIC, len(content))
        damaged = bytearray(content)
        damaged[place] ^= rng.randint(1, 255)
        try:
            got = b"".join(decompressed(Stream(bytes(damaged))))
        except ShardError:
            continue
        assert got == TAR, "a header's date or name is no content"


@pytest.mark.parametrize("kind", ["gz", "xz", "zst"])
def test_data_after_the_last_member_is_refused(kind: str) -> None:
    with pytest.raises(ShardError):
        b"".join(decompressed(Stream(COMPRESSORS[kind](TAR) + b"garbage garbage garbage")))


@pytest.mark.parametrize("kind", ["gz", "xz", "zst"])
def test_a_compressed_bomb_stops_at_the_bound(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar"
    path.write_bytes(COMPRESSORS[kind](bytes(64 << 20)))
    with pytest.raises(ShardError, match="larger than the spool's bound"):
        read(path, tmp_path, limit=10 << 20)
    assert (tmp_path / "spool").stat().st_size <= 10 << 20


class Stream:
    """A readable file."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def read(self, count: int) -> bytes:
        count = min(count, 1000)
        piece, self.content = self.content[:count], self.content[count:]
        return piece


UNREADABLE = -1  # instead of a status: an answer that is not HTTP


@dataclass
class Site:
    """A web server with one file and the faults that a test asks for."""

    content: bytes
    ranges: bool = True
    length: bool = True  # says Content-Length
    lie: int = 0  # added to the length that HEAD tells
    cuts: list[int] = field(default_factory=list)  # each breaks one answer off after so many bytes
    codes: list[int] = field(default_factory=list)  # each is one answer's status instead, but for 0
    away: float = 0.0  # seconds without an answer after one was broken off
    back: float = 0.0  # when they are over
    swap: bytes | None = None  # what the file is after the first answer
    requests: list[str] = field(default_factory=list)
    url: str = ""


class Handler(http.server.BaseHTTPRequestHandler):
    site: Site
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        site = self.site
        wanted = self.headers.get("Range")
        site.requests.append(f"{self.command} {wanted or ''}".strip())
        self.close_connection = True
        if time.monotonic() < site.back:
            return
        if site.codes and (code := site.codes.pop(0)):
            if code == UNREADABLE:
                self.wfile.write(b"no status line\r\n\r\n")
            else:
                self.send_error(code)
            return
        content = site.content
        first, last = 0, len(content) - 1
        if wanted and site.ranges:
            start, _, end = wanted.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end), last)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        else:
            self.send_response(200)
        piece = content[first : last + 1]
        if site.length:
            self.send_header("Content-Length", str(len(piece) + (0 if body else site.lie)))
        self.send_header("ETag", str(hash(content)))
        self.send_header("Connection", "close")
        self.end_headers()
        if body:
            if site.cuts:
                piece = piece[: site.cuts.pop(0)]
                site.back = time.monotonic() + site.away
            self.wfile.write(piece)
            if site.swap is not None:
                site.content, site.swap = site.swap, None


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        return  # a client that breaks off


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Site], str]]:
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(remote, "OUTAGE_SECONDS", 0.3)
    servers = []

    def start(site: Site) -> str:
        server = Server(("127.0.0.1", 0), type("H", (Handler,), {"site": site}))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/shard.tar"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


Serve = Callable[[Site], str]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("length", [True, False])
def test_a_remote_shard_is_streamed(
    ranges: bool, length: bool, serve: Serve, tmp_path: Path
) -> None:
    site = Site(NOISE, ranges=ranges, length=length)
    assert read(serve(site), tmp_path) == NOISE
    assert sum(r.startswith("GET") for r in site.requests) <= 4


def test_a_broken_connection_is_taken_up_where_it_broke(serve: Serve, tmp_path: Path) -> None:
    site = Site(NOISE, cuts=[5_000_000, 100_000, 0, 1_000_000])
    assert read(serve(site), tmp_path) == NOISE
    resumed = [r for r in site.requests if "bytes=" in r and "bytes=0-" not in r]
    assert resumed, site.requests


def test_without_ranges_it_is_read_again_from_the_start(serve: Serve, tmp_path: Path) -> None:
    assert read(serve(Site(NOISE, ranges=False, cuts=[5_000_000, 7_000_000])), tmp_path) == NOISE


@pytest.mark.parametrize("ranges", [True, False])
def test_a_connection_that_always_breaks_fails(ranges: bool, serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="cannot be read from byte"):
        read(serve(Site(NOISE, ranges=ranges, cuts=[1000] * 100)), tmp_path)


@pytest.mark.parametrize("lie", [-1000, 1000])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_false_length_fails(lie: int, ranges: bool, serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"ended at byte|cannot be read from"):
        read(serve(Site(NOISE, ranges=ranges, lie=lie)), tmp_path)


def test_without_a_length_the_tars_end_tells(serve: Serve, tmp_path: Path) -> None:
    shard = tmp_path / "spool"
    shard.write_bytes(b"")
    try:
        source.fetch(
            serve(Site(TAR, ranges=False, length=False, cuts=[60_000] * 9)), str(shard), LIMIT
        )
    except ShardError:
        return
    from recaption.shard.index import index_shard

    with shard.open("rb") as file, pytest.raises(ShardError, match="byte"):
        index_shard(file)


def test_a_busy_server_is_asked_again(serve: Serve, tmp_path: Path) -> None:
    site = Site(NOISE, codes=[503, 503, 429, 500])
    assert read(serve(site), tmp_path) == NOISE


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_an_unreadable_answer_is_asked_for_again(begun: int, serve: Serve, tmp_path: Path) -> None:
    """As from a proxy that is being restarted; aiohttp calls it an answer of status 400."""
    site = Site(NOISE, codes=[0] * begun + [UNREADABLE] * 3)
    assert read(serve(site), tmp_path) == NOISE
    assert not site.codes


@pytest.mark.parametrize("begun", [0, 1, 2])
@pytest.mark.parametrize("code", [400, 403, 404, 405, 451, 501])
def test_an_answer_that_stays_is_not_asked_for_again(
    code: int, begun: int, serve: Serve, tmp_path: Path
) -> None:
    """Neither at first nor after good answers, as with a URL that has expired."""
    site = Site(NOISE, codes=[0] * begun + [code] * 9)
    with pytest.raises(ShardError, match=f"HTTP status {code}"):
        read(serve(site), tmp_path)
    assert len(site.requests) <= begun + 2


def test_a_file_that_changes_on_the_way_is_refused(serve: Serve, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"changed while it was read|ended at byte"):
        read(serve(Site(NOISE, swap=NOISE[::-1])), tmp_path)


def test_a_compressed_remote_shard(serve: Serve, tmp_path: Path) -> None:
    assert read(serve(Site(gzip.compress(TAR), cuts=[4000])), tmp_path) == TAR


def test_a_server_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "STRANGER_SECONDS", 0.3)
    began = time.monotonic()
    with pytest.raises(ShardError, match="cannot be read"):
        read("http://127.0.0.1:9/shard.tar", tmp_path)
    assert 0.3 <= time.monotonic() - began < 3


@pytest.mark.parametrize(("seconds", "survives"), [(20.0, True), (0.4, False)])
def test_a_server_that_goes_away_and_comes_back(
    seconds: float, survives: bool, serve: Serve, tmp_path: Path
) -> None:
    """In the middle of a file, for as long as a server that has answered may be away, or longer."""
    url, spool = serve(Site(NOISE, cuts=[5_000_000], away=1.5)), tmp_path / "spool"
    spool.write_bytes(b"")
    if survives:
        source.fetch(url, str(spool), LIMIT, outage_seconds=seconds)
        assert spool.read_bytes() == NOISE
    else:
        with pytest.raises(ShardError, match=r"cannot be read from byte [1-9]"):
            source.fetch(url, str(spool), LIMIT, outage_seconds=seconds)


def test_a_store_that_stays_away_costs_tries(serve: Serve, tmp_path: Path) -> None:
    """No earlier than the key says, and not much later."""
    shards = (
        f"[{serve(Site(TAR))},{serve(Site(TAR, cuts=[5_000], away=600)).replace('shard', 'b')}]"
    )
    words = (f"data.shards={shards}", "engine=fake", "output.dir=run", "data.tries=1")
    result = launch(*words, "data.outage_seconds=2", cwd=tmp_path)
    assert result.returncode == 1
    assert "b.tar: cannot be read from byte" in result.stderr
    (log,) = (tmp_path / "run/.recaption/tasks").glob("*.jsonl")
    events = {e["event"]: e["time"] for e in map(json.loads, log.read_text().splitlines())}
    assert 2 <= events["failed"] - events["start"] < 20


def test_pipes(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(TAR)
    assert read(f"pipe:cat {tmp_path}/a.tar", tmp_path) == TAR
    with pytest.raises(ShardError, match="exited with 3"):
        read(f"pipe:head -c 5000 {tmp_path}/a.tar; exit 3", tmp_path)


def test_a_pipe_runs_only_where_it_is_allowed(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(TAR)
    words = ("data.shards=pipe:touch ran; cat a.tar", "engine=fake", "output.dir=run")
    refused(launch(*words, cwd=tmp_path), "data.allow_pipe", "pipe:")
    assert not (tmp_path / "ran").exists()
    launched(*words, "data.allow_pipe=true", cwd=tmp_path)
    assert (tmp_path / "ran").exists()
    assert len(rows(tmp_path / "run", "00000.tar")) == 40


def test_remote_and_compressed_shards_through_a_run(serve: Serve, tmp_path: Path) -> None:
    url = serve(Site(gzip.compress(TAR)))
    cut = serve(Site(gzip.compress(TAR)[:-9]))
    (tmp_path / "local.tar.zst").write_bytes(zstandard.compress(TAR))
    (tmp_path / "broken.tar").write_bytes(lzma.compress(TAR)[:-20])
    shards = f"[{url}?a,{cut.replace('shard', 'cut')},local.tar.zst,broken.tar]"
    result = launch(
        f"data.shards={shards}", "engine=fake", "output.dir=run", "data.tries=1", cwd=tmp_path
    )
    assert result.returncode == 1
    assert "2 of 4 shards published" in result.stdout
    assert "cut.tar: gzip data cut" in result.stderr
    assert "broken.tar: xz data cut" in result.stderr
    for name in ("shard.tar", "local.tar"):
        assert [r["status"] for r in rows(tmp_path / "run", name)] == ["captioned"] * 40
    assert not (tmp_path / "run/cut.tar").exists()
