"""Files that are never half written, and locks between processes."""

import functools
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import filelock
from safetensors import SafetensorError


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """An error of the system in it becomes an OSError, once, that names `path` (read-only, full) and how to go on."""
    try:
        yield
    except (
        OSError,
        SafetensorError,
    ) as error:  # safetensors has a kind of its own, also for a full disk
        why = str(getattr(error, "strerror", None) or error)
        if why.startswith("cannot write"):
            raise
        why = f"cannot write: {why}; what stood there before is untouched. With space, the same command goes on"
        raise OSError(getattr(error, "errno", None) or 5, why, str(path)) from error


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which it replaces on success; else it is removed. Raises as `writing`."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = (
                temporary.stat().st_mode
            )  # safetensors replaces it by one that only its owner may read
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(mode)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes text as UTF-8, aside and then renamed."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value) -> None:
    """Writes `value` as indented JSON, aside and then renamed."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path):
    """Reads JSON; a ValueError names the file that does not parse."""
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, found something else ({error})") from error


def write_lines(path: str | Path, rows: list[dict]) -> None:
    """Writes JSONL, aside and then renamed."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: str | Path) -> list[dict]:
    """The lines of a JSONL file, none if there is no file; a last line without its end is being written, and left out.

    A ValueError names the file and the line that does not parse.
    """
    if not Path(path).exists():
        return []
    rows = []
    for number, line in enumerate(Path(path).read_text().split("\n")[:-1], start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: expected JSON, found {line[:60]!r}"
            ) from error
    return rows


def mistaken(path: str | Path) -> str:
    """What stands in place of a file that did not arrive, and what to do, where its beginning says so; else ""."""
    with open(path, "rb") as file:
        start = file.read(256).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "the pointer of Git LFS to a file that was not fetched; run: git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page in its place; download the file again"
    return "" if start else "an empty file; fetch or make it again"


@functools.lru_cache(maxsize=16)
def digest(path: str, size: int, modified: int) -> str:
    """Twelve hexadecimal digits of a file's content, read again only when its size or date of change differs."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Holds a lock between processes; the system frees it when its holder dies."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(
            f"Waiting for another process that makes {Path(path).with_suffix('').name}",
            file=sys.stderr,
        )
        lock.acquire()
    except (
        OSError,
        NotImplementedError,
    ):  # a read-only folder, or a file system without locks: nothing to hold
        pass
    try:
        yield
    finally:
        lock.release()


def is_locked(path: str | Path) -> bool:
    """Whether a process holds the lock; where the file system has locks, also one of another machine."""
    try:
        with filelock.FileLock(path, timeout=0) if Path(path).exists() else nullcontext():
            return False
    except (OSError, NotImplementedError) as error:  # the others as for `locked`
        return isinstance(error, filelock.Timeout)
