"""
A Hub on 127.0.0.1, for the real `huggingface_hub` client: model repositories with branches, LFS and private ones.

Everything is kept in memory. Writing needs the token; so does reading a private repository, which does not exist for
anybody else. Xet is not spoken (`HF_HUB_DISABLE_XET=1`), nor are pull requests, datasets and Spaces.
"""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

TOKEN = "hf_loopback"
LFS_NAMES = re.compile(r"\.(safetensors|png|bin|pt|parquet)$")


@dataclass
class Repository:
    name: str
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        parts = [message, self.branches.get(branch, ""), *(f"{path}{len(data)}" for path, data in files.items())]
        sha = hashlib.sha1("\n".join(parts).encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.messages.append(message)
        return sha

    def files(self, revision: str = "main") -> dict[str, bytes]:
        return self.commits[self.branches.get(revision, revision)]


class Hub:
    """`with Hub() as hub:` serves at `hub.url`; `hub.repositories` is what it holds, `hub.requests` what was asked."""

    def __init__(self):
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # LFS: sha256 -> content
        self.requests: list[str] = []
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    routes = [
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate_yaml"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<branch>.+)", "branch"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>.+)", "preupload"),
        ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>.+)", "commit"),
        ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", "lfs_batch"),
        ("POST", r"/lfs/verify/(?P<oid>\w+)", "lfs_verify"),
        ("PUT", r"/lfs/(?P<oid>\w+)", "lfs_put"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/]+)", "tree"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>.+)", "info"),
        ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)", "info"),
        ("GET|HEAD", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
    ]

    def answer(self):
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        self.body = self.read_body()
        for methods, pattern, name in self.routes:
            match = re.fullmatch(pattern, path)
            if match and re.fullmatch(methods, self.command):
                arguments = match.groupdict()
                if self.command in ("POST", "PUT") and name != "validate_yaml" and not self.authorized(name):
                    return self.reply(401, {"error": "Invalid username or password."})
                if "repo" in arguments:
                    repository = self.hub.repositories.get(arguments["repo"])
                    if repository is None or (repository.private and not self.authorized()):
                        return self.reply(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
                    arguments["repo"] = repository
                return getattr(self, name)(**arguments)
        self.reply(404, {"error": f"this Hub has no {self.command} {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def authorized(self, name: str = "") -> bool:
        # the address of an LFS object is itself the permission, as with signed addresses
        return name == "lfs_put" or self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            chunks = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, status: int, body: dict | list | bytes, headers: dict | None = None):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(body, bytes) else "application/json"
        for key, value in {"Content-Type": kind, "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *args):
        pass

    def create(self):
        wanted = json.loads(self.body)
        name = f"{wanted.get('organization') or 'tester'}/{wanted['name']}"
        exists = name in self.hub.repositories
        if not exists:
            private = wanted.get("visibility") == "private" or bool(wanted.get("private"))
            self.hub.repositories[name] = Repository(name, private)
            self.hub.repositories[name].commit("main", {".gitattributes": b""}, "initial commit")
        self.reply(409 if exists else 200, {"url": f"{self.hub.url}/{name}", "name": name, "id": name})

    def validate_yaml(self):
        block = REGEX_YAML_BLOCK.search(json.loads(self.body)["content"])
        try:
            ok = block is not None and isinstance(yaml.safe_load(block[2]), dict)
        except yaml.YAMLError:
            ok = False
        errors = [] if ok else [{"message": "the metadata are not a YAML mapping"}]
        self.reply(200 if ok else 400, {"errors": errors, "warnings": []})

    def branch(self, repo: Repository, branch: str):
        exists = branch in repo.branches
        repo.branches.setdefault(branch, repo.branches["main"])
        self.reply(409 if exists else 200, {})

    def preupload(self, repo: Repository, revision: str):
        files = []
        for wanted in json.loads(self.body)["files"]:
            path = wanted["path"]
            large = bool(LFS_NAMES.search(path))
            there = repo.files(revision).get(path)
            oid = None if there is None else (sha256(there) if large else git_oid(there))
            mode = "lfs" if large else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.reply(200, {"files": files})

    def lfs_batch(self, repo: Repository):
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            oid, answer = wanted["oid"], dict(wanted)
            if oid not in self.hub.objects:
                put, verify = f"{self.hub.url}/lfs/{oid}", f"{self.hub.url}/lfs/verify/{oid}"
                answer["actions"] = {"upload": {"href": put}, "verify": {"href": verify}}
            objects.append(answer)
        self.reply(200, {"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str):
        if sha256(self.body) != oid:
            return self.reply(400, {"error": "the content has another hash"})
        self.hub.objects[oid] = self.body
        self.reply(200, {})

    def lfs_verify(self, oid: str):
        size = json.loads(self.body)["size"]
        found = oid in self.hub.objects and len(self.hub.objects[oid]) == size
        self.reply(200 if found else 404, {})

    def commit(self, repo: Repository, revision: str):
        files, message = dict(repo.files(revision)), ""
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                content = value["content"]
                files[value["path"]] = base64.b64decode(content) if value["encoding"] == "base64" else content.encode()
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
            else:
                return self.reply(400, {"error": f"unknown operation {entry['key']}"})
        sha = repo.commit(revision, files, message)
        self.reply(200, {"success": True, "commitOid": sha, "commitUrl": f"{self.hub.url}/{repo.name}/commit/{sha}"})

    def sha_of(self, repo: Repository, revision: str) -> str | None:
        sha = repo.branches.get(revision, revision)
        return sha if sha in repo.commits else None

    def info(self, repo: Repository, revision: str = "main"):
        sha = self.sha_of(repo, revision)
        if sha is None:
            return self.reply(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": path} for path in sorted(repo.commits[sha])]
        self.reply(
            200, {"id": repo.name, "modelId": repo.name, "sha": sha, "private": repo.private, "siblings": siblings}
        )

    def tree(self, repo: Repository, revision: str):
        sha = self.sha_of(repo, revision)
        if sha is None:
            return self.reply(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        entries = []
        for path, data in sorted(repo.commits[sha].items()):
            entry = {"type": "file", "oid": git_oid(data), "size": len(data), "path": path}
            if LFS_NAMES.search(path):
                entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
            entries.append(entry)
        self.reply(200, entries)

    def resolve(self, repo: Repository, revision: str, path: str):
        sha = self.sha_of(repo, revision)
        if sha is None:
            return self.reply(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        data = repo.commits[sha].get(path)
        if data is None:
            missing = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha}
            return self.reply(404, {"error": "Entry not found"}, missing)
        headers = {"X-Repo-Commit": sha, "ETag": f'"{git_oid(data)}"'}
        if LFS_NAMES.search(path):
            headers |= {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": len(data)}
        self.reply(200, data, headers)
