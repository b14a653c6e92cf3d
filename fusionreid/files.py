"""Files that are never half written, and locks between processes."""

import functools
import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO
from pathlib import Path

import filelock
from safetensors import SafetensorError


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """An error while `path` is written, as on a full disk, becomes an OSError that names `path`.

    The message says how to continue. An error that names its file already is passed on.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors has an error of its own
        reason = str(getattr(error, "strerror", None) or error)
        if reason.startswith("cannot write"):
            raise
        raise OSError(
            getattr(error, "errno", None) or EIO,
            f"cannot write: {reason}; what stood there before is untouched. "
            "With space, the same command goes on",
            str(path),
        ) from error


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`. It replaces `path` on success, else it is removed.

    Raises OSError as `writing` does.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}{path.suffix}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            with open(temporary, "rb") as written:
                os.fsync(written.fileno())
            temporary.chmod(mode)  # safetensors makes files that only their owner may read
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes text as UTF-8, by `atomic_write`."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value) -> None:
    """Writes `value` as indented JSON, by `atomic_write`."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: str | Path):
    """Reads JSON. Raises ValueError, naming the file, if it does not parse."""
    try:
        return json.loads(Path(path).read_text())
    except ValueError as error:
        raise ValueError(f"{path}: expected JSON, found something else ({error})") from error


def write_lines(path: str | Path, rows: list[dict]) -> None:
    """Writes a line of JSON for each row, by `atomic_write`."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_lines(path: str | Path) -> list[dict]:
    """The rows that `write_lines` wrote; none if there is no file.

    A last line without a newline was cut short, and is left out. Raises ValueError, naming the
    file and the line, if one does not parse.
    """
    if not Path(path).exists():
        return []
    rows = []
    *complete, _ = Path(path).read_text().split("\n")
    for number, line in enumerate(complete, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: expected JSON, found {line[:60]!r}"
            ) from error
    return rows


def mistaken(path: str | Path) -> str:
    """What a file holds in place of its content, and what to do; "" if its beginning looks right.

    A download that failed leaves a pointer of Git LFS, a web page or an empty file.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(256).lstrip().lower()
    except PermissionError as error:
        return f"a file that cannot be read: {error.strerror}"
    if not start:
        return "an empty file; fetch or make it again"
    if start.startswith(b"version https://git-lfs"):
        return "the pointer of Git LFS to a file that was not fetched; run: git lfs pull"
    if start.startswith((b"<!doctype html", b"<html")):
        return "a web page in its place; download the file again"
    return ""


@functools.lru_cache(maxsize=16)
def digest(path: str, size: int, modified: int) -> str:
    """Twelve hexadecimal digits of a file's content.

    The file is read again only when its size or its date of change differs.
    """
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:12]


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Holds a lock between processes; the system frees it when its holder dies."""
    lock = filelock.FileLock(path)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        print(f"Waiting for another process that makes {Path(path).stem}", file=sys.stderr)
        lock.acquire()
    except (OSError, NotImplementedError):
        pass  # a read-only folder, or a file system without locks: there is nothing to hold
    try:
        yield
    finally:
        lock.release()


def is_locked(path: str | Path) -> bool:
    """Whether a process holds the lock, also one of another machine where files have locks."""
    if not Path(path).exists():
        return False
    try:
        with filelock.FileLock(path, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except (OSError, NotImplementedError):  # as in `locked`
        return False
