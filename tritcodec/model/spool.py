"""What an unfinished run has done so far, kept so that a kill at any moment loses only the work in flight.

A folder `.tritcodec` in the output folder: a lock, the run's fingerprint, one
file for every piece of finished work, and the shards that are complete. Whatever has its name
there is whole, after a power cut, too; a piece holds its own SHA-256 besides.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import TritError
from ..writer import sync

STATE = ".tritcodec"  # in the output folder, while a run is not complete
FINGERPRINT, LOCK, PIECES = "run.json", "lock", "pieces"
BEGUN = "begun"
DIGEST_SIZE = 32


class Spool:
    """The state folder of a run in *target*; a context manager that holds the lock.

    Raises TritError where another run holds the lock, where what an earlier one
    left has another *fingerprint*, or where nothing was left and one of *outputs* exists. After a
    TritError nothing is left of a run that has not begun to encode; otherwise all is kept.
    """

    def __init__(self, target: Path, fingerprint: Mapping[str, Any], outputs: Sequence[Path]) -> None:
        self.target, self.outputs = target, outputs
        self.folder = target / STATE
        self.fingerprint = json.loads(json.dumps(fingerprint))  # as it will be read back
        self._new = [parent for parent in (target, *target.parents) if not parent.exists()]

    def __enter__(self) -> Spool:
        if not (self.folder / FINGERPRINT).exists():
            self._check_outputs()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = open(self.folder / LOCK, "ab")  # closed by __exit__
        except OSError as error:
            raise self._of_target(error) from None
        try:
            _lock(self._lock.fileno())
            if not os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.folder / LOCK)):
                raise FileExistsError  # another run has ended meanwhile, and a third has begun
        except OSError:
            self._lock.close()
            raise TritError("another run is at work here", where=str(self.target)) from None
        try:
            self._compare()
            (self.folder / PIECES).mkdir(exist_ok=True)
            for cut_off in self.folder.glob("*/.*.tmp"):  # a shard that was being written at a kill
                cut_off.unlink()
        except BaseException as error:
            if not (self.folder / FINGERPRINT).exists():  # nothing was begun
                self.discard()
            self._lock.close()
            raise self._of_target(error) if isinstance(error, OSError) else error from None
        return self

    def _check_outputs(self) -> None:
        for output in self.outputs:
            if os.path.lexists(output):
                raise TritError("exists already; remove it or name another place", where=str(output))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, TritError) and self.get(BEGUN) is None:
            self.discard()
        if isinstance(error, OSError):
            self._of_target(error)
        self._lock.close()  # and with it, the lock

    def _of_target(self, error: OSError) -> OSError:
        """*error*, of the target where it is of something in it: no file there was asked for by name."""
        if error.errno is not None and str(error.filename or self.folder).startswith(str(self.folder)):
            error.filename = str(self.target)
        return error

    def begin(self) -> None:
        """From here on there is something to lose."""
        self.put(BEGUN, b"")

    def _compare(self) -> None:
        path = self.folder / FINGERPRINT
        try:
            earlier = json.loads(path.read_bytes())
        except FileNotFoundError:
            self._check_outputs()  # once more: another run may have ended before this one had the lock
            self._clear()
            _write(path, json.dumps(self.fingerprint, indent=1).encode())
            return
        except ValueError:
            raise TritError(f"{FINGERPRINT} is damaged; {self._remedy()}", where=str(self.folder)) from None
        changed = list(differences(earlier, self.fingerprint))
        if changed:
            message = (
                f"an unfinished run of something else is here: {'; '.join(changed[:3])}. {self._remedy()}"
            )
            raise TritError(message, where=str(self.target))

    def _clear(self) -> None:
        """Remove what a run left that was over: it has no fingerprint, so its pieces may be of anything."""
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != LOCK:
                path.unlink()

    def _remedy(self) -> str:
        return f"To begin anew, remove {self.folder}"

    def put(self, key: str, data: bytes) -> None:
        """Keep *data* as the piece *key*."""
        _write(self._piece(key), sha256(data).digest(), data)

    def get(self, key: str) -> bytes | None:
        """The piece *key*; None where it is not there, or not whole."""
        try:
            content = self._piece(key).read_bytes()
        except FileNotFoundError:
            return None
        digest, data = content[:DIGEST_SIZE], content[DIGEST_SIZE:]
        return data if sha256(data).digest() == digest else None

    def read(self, key: str, offset: int, size: int) -> npt.NDArray[np.uint8]:
        """Bytes of the piece *key*, which has been put or got before."""
        data = np.empty(size, np.uint8)
        with open(self._piece(key), "rb") as file:
            file.seek(DIGEST_SIZE + offset)
            count = file.readinto(data.data)
        if count != size:
            raise TritError("a piece of the unfinished run has been cut off", where=str(self._piece(key)))
        return data

    def drop(self, key: str) -> None:
        """Forget the piece *key*, where it is there."""
        self._piece(key).unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove the state, and the folders that were made for it where they hold nothing else."""
        # The fingerprint first: half a state that had one would be taken for an unfinished run.
        (self.folder / FINGERPRINT).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # a disk that fails is no reason to keep it
            sync(self.folder)
        with contextlib.suppress(OSError):  # of closing a folder, which is not ignored
            shutil.rmtree(self.folder, ignore_errors=True)
        for folder in self._new:
            with contextlib.suppress(OSError):
                folder.rmdir()

    def _piece(self, key: str) -> Path:
        return self.folder / PIECES / key


def differences(before: Any, now: Any, where: str = "") -> Iterator[str]:
    """In words, what is not the same in two values of JSON."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from differences(before.get(key), now.get(key), f"{where} {key}".strip())
    elif before != now:
        yield f"{where} was {json.dumps(before)[:200]}, is {json.dumps(now)[:200]}"


def _write(path: Path, *data: bytes) -> None:
    """Write a file that is there whole or not at all, and stays."""
    temporary = path.with_name(f"{path.name}.tmp")  # of the one run that holds the lock
    with open(temporary, "wb") as file:
        file.writelines(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    sync(path.parent)


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        """Take the lock on a file, or raise OSError; it goes with the process."""
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        """Take the lock on a file, or raise OSError; it goes with the process."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
