import errno
import subprocess
import sys

import pytest

from lightning_dice.files import atomic_write, locked, remove_leftovers
from tests.full_disk import room_for


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with (
        pytest.raises(UnicodeEncodeError),
        atomic_write(path) as temporary,
        open(temporary, "w", encoding="ascii") as file,
    ):
        print("half", "ż", file=file)
    assert not list(path.parent.iterdir())
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert temporary.parent == path.parent
        assert temporary.suffix == ".txt"
        assert not path.exists()
    assert path.read_text() == "whole"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_full_disk_is_told_with_the_files_own_name(tmp_path):
    outer, inner = tmp_path / "outer", tmp_path / "inner"
    with (
        room_for(100),
        pytest.raises(OSError, match="File too large") as failure,
        atomic_write(outer),
        atomic_write(inner) as path,
    ):
        path.write_bytes(bytes(200))
    assert (failure.value.errno, failure.value.filename) == (errno.EFBIG, str(inner))
    assert not list(tmp_path.iterdir())
    folder = tmp_path / "folder"
    (folder / "taken").mkdir(parents=True)
    with pytest.raises(IsADirectoryError) as failure, atomic_write(folder) as path:
        path.write_bytes(b"")
    assert failure.value.filename == str(folder)
    with pytest.raises(FileNotFoundError) as failure, atomic_write(outer):
        (tmp_path / "other").read_bytes()
    assert failure.value.filename == str(tmp_path / "other")


def test_only_temporary_files_of_the_asked_kind_are_left_over(tmp_path):
    names = [".123-a.npy", ".123-a.csv", ".a-b.npy", "123-a.npy", "a.npy"]
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path, (".npy", ".json"))
    assert {path.name for path in tmp_path.iterdir()} == set(names) - {".123-a.npy"}


def test_one_process_writes_at_a_time_and_the_others_say_that_they_wait(tmp_path):
    folder = tmp_path / "new" / "store"
    code = "import sys, pathlib; from lightning_dice.files import locked\n"
    code += "with locked(pathlib.Path(sys.argv[1])): print('in', flush=True); sys.stdin.read()"
    processes = []
    for _ in range(2):
        words = [sys.executable, "-c", code, str(folder)]
        processes.append(subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        if len(processes) == 1:
            assert processes[0].stdout.readline() == "in\n"
    first, second = processes
    assert second.stdout.readline() == f"{folder}: another process writes there, waiting until it is done\n"
    first.kill()  # the system drops its lock
    assert second.communicate("", timeout=20) == ("in\n", None)
    assert second.returncode == 0
    first.communicate()
    with locked(folder):
        pass
