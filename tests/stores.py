"""Local servers that speak S3 and the Hugging Face Hub's few endpoints, with the faults a test asks for."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import boto3
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

Environ = dict[str, Any]
KEYS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",  # botocore's own retries take seconds each
}


@dataclass
class Faults:
    """What a server does wrong, and what it was asked for."""

    requests: list[str] = field(default_factory=list)  # METHOD PATH
    cuts: list[int] = field(
        default_factory=list
    )  # each breaks one GET's answer off after so many bytes
    cutting: str = ""  # what a request has to have in it to be cut
    broken: Callable[[str], bool] = lambda request: False  # these get no answer at all
    refused: Callable[[str], int] = lambda request: 0  # these get this status
    before: Callable[[str], None] = lambda request: None
    after: Callable[[str], None] = lambda request: None

    def clear(self) -> None:
        """Behave from now on."""
        fresh = Faults()
        vars(self).update({k: v for k, v in vars(fresh).items() if k != "requests"})
        self.requests.clear()

    def of(self, *methods: str) -> list[str]:
        """Paths that were asked for with these methods."""
        split = [r.split(" ", 1) for r in self.requests]
        return [path for method, path in split if method in methods]


class Faulty:
    """A WSGI application in front of another one."""

    def __init__(self, app: Any, faults: Faults) -> None:
        self.app, self.faults = app, faults
        self.lock = threading.Lock()

    def __call__(self, environ: Environ, start: Any) -> Iterable[bytes]:
        faults = self.faults
        query = environ.get("QUERY_STRING", "")
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{'?' if query else ''}{query}"
        with self.lock:
            faults.requests.append(request)
            faults.before(request)
            may_cut = request.startswith("GET ") and faults.cutting in request
            cut = faults.cuts.pop(0) if faults.cuts and may_cut else None
        if faults.broken(request):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError
        if status := faults.refused(request):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start(f"{status} refused", [("Content-Length", "0")])
            return []
        body = b"".join(self.app(environ, start))
        faults.after(request)
        return [body] if cut is None else self._cut(body, cut, environ)

    def _cut(self, body: bytes, cut: int, environ: Environ) -> Iterator[bytes]:
        yield body[:cut]
        if cut < len(body):
            environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise ConnectionResetError


@contextmanager
def served(app: Any) -> Iterator[str]:
    """The URL of a WSGI application on a free port."""
    server = make_server("127.0.0.1", 0, app, threaded=True)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass
class S3:
    """A store with one bucket."""

    url: str
    bucket: str
    faults: Faults

    @property
    def environment(self) -> dict[str, str]:
        return {**KEYS, "AWS_ENDPOINT_URL": self.url}

    @property
    def client(self) -> Any:
        return boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
            region_name="us-east-1",
        )

    def put(self, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def objects(self, prefix: str = "") -> dict[str, bytes]:
        """Every object below a prefix, by what follows it."""
        client, found = self.client, {}
        listing = client.get_paginator("list_objects_v2")
        for page in listing.paginate(Bucket=self.bucket, Prefix=prefix):
            for entry in page.get("Contents", []):
                body = client.get_object(Bucket=self.bucket, Key=entry["Key"])["Body"]
                found[entry["Key"].removeprefix(prefix)] = body.read()
        return found


@contextmanager
def s3_server() -> Iterator[tuple[str, Faults]]:
    faults = Faults()
    with served(Faulty(DomainDispatcherApplication(create_backend_app), faults)) as url:
        yield url, faults


@dataclass
class Hub:
    """Repositories: files at the head, blobs in the large file storage, commits.

    One with `revisions` has those alone, by name, and one commit for each.
    """

    faults: Faults
    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)  # repository → path → bytes
    private: dict[str, bool] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)  # paths of each
    branches: set[str] = field(default_factory=lambda: {"main"})  # with the same files
    revisions: dict[str, dict[str, str]] = field(default_factory=dict)  # repository → name → commit
    gated: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        return {"HF_ENDPOINT": self.url, "HF_TOKEN": "hf_testing", "HF_HUB_DISABLE_XET": "1"}

    def __call__(self, environ: Environ, start: Any) -> Iterable[bytes]:
        request = Request(environ)
        response: Iterable[bytes] = self.answer(request)(environ, start)
        return response

    def answer(self, request: Request) -> Response:
        if (
            request.headers.get("Authorization") != "Bearer hf_testing"
            and "/blobs/" not in request.path
        ):
            return Response(status=401, headers={"X-Error-Code": "RepoNotFound"})
        parts = unquote(request.path).strip("/").split("/")
        match request.method, parts:
            case "POST", ["api", "validate-yaml"]:
                return _json({"errors": [], "warnings": []})
            case "POST", ["api", "repos", "create"]:
                body = request.get_json()
                name = f"{body.get('organization') or 'user'}/{body['name']}"
                self.files[name], self.private[name] = {}, body.get("visibility") == "private"
                return _json({"url": f"{self.url}/datasets/{name}", "name": name, "id": name})
            case "PUT", ["blobs", oid]:
                content = request.get_data()
                if hashlib.sha256(content).hexdigest() != oid:
                    return Response(status=400)
                self.blobs[oid] = content
                return Response(status=200)
        rest = parts[1:] if parts[0] in ("api", "datasets") else parts
        rest = rest[1:] if rest[0] in ("datasets", "models") else rest
        repo = f"{rest[0]}/{rest[1].removesuffix('.git')}"
        if repo not in self.files:
            return Response(status=404, headers={"X-Error-Code": "RepoNotFound"})
        if repo in self.gated:
            return Response(status=403, headers={"X-Error-Code": "GatedRepo"})
        return self.repository(request, repo, rest[2:])

    def commit_of(self, repo: str, revision: str) -> str | None:
        """The commit of a revision; None where there is no such."""
        known = self.revisions.get(repo, {revision: "0" * 40})
        return revision if revision in known.values() else known.get(revision)

    def repository(self, request: Request, repo: str, rest: list[str]) -> Response:
        files = self.files[repo]
        if rest[0:1] == ["branch"]:
            self.branches.add(rest[1])
            return _json({})
        reads = rest and rest[0] in ("revision", "tree", "resolve")
        head = self.commit_of(repo, rest[1] if reads else "main") or ""
        branched = rest[0:1] and rest[0] in ("tree", "commit", "preupload")
        unknown = branched and repo not in self.revisions and rest[1] not in self.branches
        if not head or unknown:
            return Response(status=404, headers={"X-Error-Code": "RevisionNotFound"})
        match request.method, rest:
            case "GET", [] | ["revision", _]:
                return _json({"id": repo, "sha": head, "siblings": [], "private": True})
            case "GET", ["tree", _, *folder]:
                prefix = "".join(f"{p}/" for p in folder)
                found = _tree(files, prefix, request.args.get("recursive", "").lower() == "true")
                if prefix and not found:
                    return Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
                return _json(found)
            case "POST", ["paths-info", _]:
                form = request.get_json(silent=True) or parse_qs(request.get_data(as_text=True))
                return _json([_entry(p, files[p]) for p in form["paths"] if p in files])
            case "POST", ["preupload", _]:
                asked = request.get_json()["files"]
                return _json(
                    {
                        "files": [
                            {
                                "path": f["path"],
                                "uploadMode": _mode(f["path"]),
                                "shouldIgnore": False,
                            }
                            for f in asked
                        ]
                    }
                )
            case "POST", ["info", "lfs", "objects", "batch"]:
                return _json(
                    {
                        "transfer": "basic",
                        "objects": [self.wanted(o) for o in request.get_json()["objects"]],
                    }
                )
            case "POST", ["commit", _]:
                return self.commit(repo, request.get_data(as_text=True))
            case "GET" | "HEAD", ["resolve", _, *path]:
                return self.resolve(request, files.get("/".join(path)), head)
        return Response(status=404)

    def wanted(self, thing: dict[str, Any]) -> dict[str, Any]:
        if thing["oid"] in self.blobs:
            return thing
        return {**thing, "actions": {"upload": {"href": f"{self.url}/blobs/{thing['oid']}"}}}

    def commit(self, repo: str, lines: str) -> Response:
        entries = [json.loads(line) for line in lines.splitlines()]
        changed = {}
        for entry in entries:
            value = entry["value"]
            if entry["key"] == "file":
                changed[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.blobs:
                    return Response(status=400)
                changed[value["path"]] = self.blobs[value["oid"]]
        with self.lock:
            self.files[repo] |= changed
            self.commits.append(sorted(changed))
        oid = f"{len(self.commits):040x}"
        return _json(
            {
                "commitUrl": f"{self.url}/datasets/{repo}/commit/{oid}",
                "commitOid": oid,
                "success": True,
            }
        )

    def resolve(self, request: Request, content: bytes | None, commit: str) -> Response:
        if content is None:
            return Response(status=404, headers={"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit}
        wanted = request.headers.get("Range")
        if not wanted:
            return Response(content, headers=headers)
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or len(content)), len(content) - 1)
        headers["Content-Range"] = f"bytes {begin}-{end}/{len(content)}"
        return Response(content[begin : end + 1], status=206, headers=headers)


@contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub(Faults())
    with served(Faulty(hub, hub.faults)) as url:
        hub.url = url
        yield hub


def _json(value: Any) -> Response:
    return Response(json.dumps(value), content_type="application/json")


def _tree(files: dict[str, bytes], prefix: str, recursive: bool) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path, content in files.items():
        if not path.startswith(prefix):
            continue
        folders = path[len(prefix) :].split("/")[:-1]
        for depth in range(1, len(folders) + 1 if recursive else min(2, len(folders) + 1)):
            name = prefix + "/".join(folders[:depth])
            found[name] = {"type": "directory", "path": name, "size": 0, "oid": "0" * 40}
        if recursive or not folders:
            found[path] = _entry(path, content)
    return list(found.values())


def _mode(path: str) -> str:
    return "lfs" if path.endswith((".tar", ".parquet")) else "regular"


def _entry(path: str, content: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": blob}
    if _mode(path) == "lfs":
        digest = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return entry
