"""Files that are whole or not there, and locks between processes."""

from __future__ import annotations

import os
import subprocess
import sys

import filelock
import pytest

from fusionreid import files


def test_a_file_is_replaced_when_its_writing_has_ended(tmp_path):
    path = tmp_path / "new" / "a.txt"
    files.write_text(path, "before")
    with files.atomic_write(path) as temporary:
        temporary.write_text("after")
        assert path.read_text() == "before"
        assert temporary.parent == path.parent
    assert path.read_text() == "after"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_whose_writing_failed_is_left_as_it_was(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "before")
    with pytest.raises(KeyError), files.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_a_file_keeps_the_mode_of_the_user(tmp_path):
    """safetensors makes files that only their owner may read."""
    files.write_text(tmp_path / "plain", "")
    with files.atomic_write(tmp_path / "private") as temporary:
        temporary.unlink()
        temporary.touch(0o600)
    modes = [(tmp_path / name).stat().st_mode for name in ("plain", "private")]
    assert modes[0] == modes[1]


def test_an_error_of_the_system_names_the_file_once(tmp_path):
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    with pytest.raises(OSError) as caught, files.writing(outer), files.atomic_write(inner):
        raise OSError(28, "No space left on device")
    assert caught.value.filename == str(inner)
    message = str(caught.value)
    assert message.count("cannot write: No space left on device") == 1
    assert "the same command goes on" in message


def test_json_and_its_lines_come_back(tmp_path):
    rows = [{"epoch": 1, "name": "é"}, {"epoch": 2}]
    files.write_json(tmp_path / "a.json", rows)
    assert files.read_json(tmp_path / "a.json") == rows
    files.write_lines(tmp_path / "a.jsonl", rows)
    assert files.read_lines(tmp_path / "a.jsonl") == rows
    assert files.read_lines(tmp_path / "none.jsonl") == []


def test_a_last_line_that_was_cut_short_is_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"epoch": 1}\n{"epo')
    assert files.read_lines(path) == [{"epoch": 1}]


def test_what_does_not_parse_is_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"epoch": 1}\nnonsense\n')
    with pytest.raises(ValueError, match="a.jsonl, line 2: expected JSON, found 'nonsense'"):
        files.read_lines(path)
    with pytest.raises(ValueError, match="a.jsonl: expected JSON, found something else"):
        files.read_json(path)


@pytest.mark.parametrize(
    "content, message",
    [
        (b"", "an empty file"),
        (b"  \n", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "the pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"<html>", "a web page"),
    ],
)
def test_what_a_failed_download_leaves_is_told(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    assert files.mistaken(tmp_path / "a").startswith(message)


def test_a_file_that_looks_right_is_no_mistake(tmp_path):
    (tmp_path / "a").write_bytes(b"\x89PNG")
    assert files.mistaken(tmp_path / "a") == ""


def test_a_digest_is_of_the_content(tmp_path):
    digests = []
    for name, content in (("a", "one"), ("b", "one"), ("c", "two")):
        (tmp_path / name).write_text(content)
        digests.append(files.digest(str(tmp_path / name), 3, 0))
    assert digests[0] == digests[1] != digests[2]
    assert len(digests[0]) == 12
    (tmp_path / "a").write_text("six")
    assert files.digest(str(tmp_path / "a"), 3, 1) != digests[0]  # its date has changed


def test_a_lock_is_held_and_freed(tmp_path):
    lock = tmp_path / "a.lock"
    assert not files.is_locked(lock)
    with files.locked(lock):
        assert files.is_locked(lock)
        with pytest.raises(filelock.Timeout), filelock.FileLock(lock, timeout=0):
            pass
    assert not files.is_locked(lock)


def test_the_lock_of_a_process_that_dies_is_freed(tmp_path):
    lock = tmp_path / "model.lock"
    hold = "import filelock, sys, time; lock = filelock.FileLock(sys.argv[1]); lock.acquire()"
    say = "print('held', flush=True); time.sleep(300)"
    command = [sys.executable, "-c", f"{hold}; {say}", lock]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    process.stdout.readline()
    assert files.is_locked(lock)
    process.kill()
    process.communicate()
    assert not files.is_locked(lock)


def test_who_waits_for_a_lock_says_so(tmp_path, monkeypatch, capsys):
    acquire = filelock.FileLock.acquire

    def busy_at_first(self, timeout=None):
        if timeout == 0:
            raise filelock.Timeout(self.lock_file)
        return acquire(self)

    monkeypatch.setattr(filelock.FileLock, "acquire", busy_at_first)
    with files.locked(tmp_path / "model.lock"):
        assert capsys.readouterr().err == "Waiting for another process that makes model\n"


@pytest.mark.parametrize("error", [PermissionError, NotImplementedError])
def test_where_there_are_no_locks_work_goes_on(tmp_path, monkeypatch, error):
    def refuse(self, timeout=None):
        raise error

    (tmp_path / "a.lock").touch()
    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    with files.locked(tmp_path / "a.lock"):
        assert not files.is_locked(tmp_path / "a.lock")
