"""A preparation worker: reads, decodes, scores and renders chunks of samples, repeatably."""

from __future__ import annotations

import hashlib
import math
import os
import resource
import signal
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, BinaryIO

import PIL.Image

from recaption.engine.base import Renderer, Spec, own_picture
from recaption.engine.factory import make_renderer
from recaption.engine.parent_death import die_with_task
from recaption.engine.payload import TooSmall, pack
from recaption.errors import InputChanged, SampleError
from recaption.model.prompt import Values, has_fields
from recaption.prepare import score
from recaption.prepare.picture import decode
from recaption.prepare.questions import Asked
from recaption.run.columns import score_column
from recaption.run.rows import FILTERED, REJECTED, UNREAD
from recaption.shard.rules import Texts
from recaption.shard.samples import Sample
from recaption.shard.write import Reader, source_text

OPEN_FILES = 8
READY = "ready"


@dataclass(frozen=True)
class Descriptor:
    """The unit of work: a sample's place, the prompts to ask, and where to put the result."""

    number: int
    shard: int  # number of the open shard, for the cache of open files
    path: str
    sample: Sample
    picture: str  # run-wide identity of the picture
    prompts: tuple[str, ...]
    offset: int
    size: int
    captions: dict[str, str] = field(default_factory=dict)  # answers that prompts may refer to
    attempt: int = 0
    temperature: float | None = None  # instead of sampling.temperature
    scored: bool = False  # its scores are known from an earlier preparation


@dataclass(frozen=True)
class Prepared:
    """The result: `length` bytes at the offset, a final status, or how many bytes it `needs`."""

    number: int
    length: int = 0
    needs: int = 0
    status: str = ""
    reason: str = ""
    odd: bool = False  # failed for an unforeseen reason, and so did the built-in picture
    facts: dict[str, Any] = field(default_factory=dict)  # width, height, image_hash, scores
    cut: tuple[str, ...] = ()  # prompts whose fields were cut


_renderer: Renderer | None = None


def preload(spec: Spec) -> Renderer:
    """The process's renderer, built once; children of a forkserver inherit it."""
    global _renderer
    if _renderer is None:
        _renderer = make_renderer(spec)
    return _renderer


def main(connection: Connection, spec: Spec, memory: str, threads: int) -> None:
    """Entry point of the child process: a list of descriptors in, a list of results out."""
    die_with_task()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        preparer = Preparer(spec, preload(spec), memory, score.load(spec.config, threads))
    except Exception as e:
        connection.send(f"cannot start: {type(e).__name__}: {e}")
        raise
    limit_memory(spec.config.image.decode_mb)
    connection.send(READY)
    while True:
        try:
            chunk: list[Descriptor] = connection.recv()
        except EOFError:
            os._exit(0)
        connection.send(preparer.prepare_all(chunk))


def limit_memory(megabytes: int) -> None:
    """Limit the data segment to what is in use now and `megabytes` MiB more."""
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[5]) * resource.getpagesize()
    limit = used + (megabytes << 20)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


@dataclass
class _Seen:
    """A descriptor on its way through a worker."""

    d: Descriptor
    facts: dict[str, Any] = field(default_factory=dict)
    rgb: PIL.Image.Image | None = None
    tensors: list[Any] = field(default_factory=list)  # per scorer
    result: Prepared | None = None


class Preparer:
    """Prepares descriptors with one renderer and a small cache of open shards."""

    def __init__(
        self, spec: Spec, renderer: Renderer, memory: str, scorers: list[score.Model]
    ) -> None:
        self.config = spec.config
        self.texts = Texts(spec.config.data.text_key, spec.config.data.caption_key, spec.rules)
        self.prompts = {p.name: p for p in spec.prompts}
        self.renderer = renderer
        self.scorers = scorers
        self.memory = os.open(memory, os.O_RDWR | os.O_CLOEXEC)
        self.files: OrderedDict[int, BinaryIO] = OrderedDict()
        self.proven = False  # the built-in picture was prepared

    def prepare_all(self, chunk: Sequence[Descriptor]) -> list[Prepared]:
        """Read and decode all samples, score them as one batch, and render those that are kept."""
        seen = [_Seen(d) for d in chunk]
        for one in seen:
            self._step(one, self._look)
        self._score([one for one in seen if one.result is None and one.tensors])
        for one in seen:
            self._step(one, self._render)
        return [one.result or Prepared(one.d.number) for one in seen]

    def _step(self, one: _Seen, action: Callable[[_Seen], None]) -> None:
        """Do one step with a sample that has no final status; an exception becomes its final status."""
        number, facts = one.d.number, one.facts
        try:
            if one.result is None:
                action(one)
        except TooSmall as e:
            one.result = Prepared(number, needs=e.args[0], facts=facts)
        except SampleError as e:
            one.result = Prepared(number, status=REJECTED, reason=str(e), facts=facts)
        except (InputChanged, OSError) as e:
            reason = f"cannot be read: {e}"
            one.result = Prepared(number, status=UNREAD, reason=reason, facts=facts)
        except Exception as e:  # noqa: BLE001 - image processors raise anything on broken pictures
            reason, odd = f"cannot be prepared: {type(e).__name__}: {e}", not self._works()
            one.result = Prepared(number, status=REJECTED, reason=reason, odd=odd, facts=facts)

    def _works(self) -> bool:
        """Whether the built-in picture can be prepared; if so, failures are the samples' fault."""
        if not self.proven:
            try:
                own_picture(self.renderer, list(self.prompts.values()))
            except SampleError:  # a prompt that is too long; each sample reports that
                pass
            except Exception:  # noqa: BLE001 - as in _step
                return False
            self.proven = True
        return True

    def _look(self, one: _Seen) -> None:
        d, facts = one.d, one.facts
        if d.sample.defect:
            raise SampleError(d.sample.defect)
        reader = Reader(self._file(d))
        content = reader.read(d.sample.find(*self.config.data.image_keys))
        if content is None:
            keys = self.config.data.image_keys
            raise SampleError(self.texts.by.no_picture(d.sample, keys))
        facts["image_hash"] = hashlib.sha256(content).hexdigest()
        model = self.config.model

        def look(rgb: PIL.Image.Image) -> None:
            if not d.scored:
                one.tensors = [scorer.tensor(rgb) for scorer in self.scorers]

        shown = look if self.scorers else None
        picture = decode(content, self.config.image, model.max_pixels, model.min_side, shown)
        facts.update(width=picture.width, height=picture.height)
        one.rgb = picture.rgb

    def _score(self, batch: Sequence[_Seen]) -> None:
        for n, scorer in enumerate(self.scorers if batch else ()):
            for one, value in zip(batch, scorer.scores([b.tensors[n] for b in batch]), strict=True):
                if math.isfinite(value):
                    one.facts[score_column(scorer.name)] = value
        for one in batch:
            self._step(one, self._judge)

    def _judge(self, one: _Seen) -> None:
        for scorer in self.scorers:
            if reason := scorer.verdict(one.facts.get(score_column(scorer.name))):
                one.result = Prepared(one.d.number, 0, 0, FILTERED, reason, facts=one.facts)
                return

    def _render(self, one: _Seen) -> None:
        d = one.d
        assert one.rgb is not None
        asked = self._asked(d, Reader(self._file(d)))
        payload, cut = asked.payload(self.renderer, one.rgb, d.picture)
        length = pack(payload, self.memory, d.offset, d.size)
        one.result = Prepared(d.number, length=length, facts=one.facts, cut=cut)

    def _asked(self, d: Descriptor, reader: Reader) -> Asked:
        """The descriptor's questions, with the sample's values for their fields."""
        prompts = [self.prompts[name] for name in d.prompts]
        values = Values(None, {}, d.captions, self.texts.by)
        if any(has_fields(p) for p in prompts):
            original = source_text(reader, d.sample, self.texts)
            values = Values(original.caption, original.fields, d.captions, self.texts.by)
        return Asked(prompts, values, self.config, d.attempt, d.temperature)

    def _file(self, d: Descriptor) -> BinaryIO:
        file = self.files.get(d.shard)
        if file is None:
            file = self.files[d.shard] = open(d.path, "rb")  # noqa: SIM115
            if len(self.files) > OPEN_FILES:
                self.files.popitem(last=False)[1].close()
        self.files.move_to_end(d.shard)
        return file
