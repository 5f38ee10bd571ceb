"""Reading and writing files: atomically, reproducibly to the byte, and without executing anything.

Hides temporary files and the archive format. For every wing above data that reads or writes fvlrp's files.

A file of arrays is a zip archive of ``.npy`` members, as `numpy.load` reads it, beside one member ``header.json``::

    {"format": "fvlrp", "version": 1,
     "header": {"kind": ..., ...},                                     what the caller wants to say
     "arrays": {name: {"dtype": "<f4", "shape": [..], "sha256": ..}}}  what each member must turn out to be

``header["kind"]`` tells a Fisher-vector model, a CNN and an explanation apart. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import secrets
import stat
import sys
import threading
import time
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..runtime.types import Json, Parsed, Values

if sys.platform != "win32":
    import fcntl

FORMAT = "fvlrp"
VERSION = 1
FISHER, CONVNET, EXPLANATION = "fisher-vector classifier", "convnet", "explanation"  # kinds of files

_HEADER = "header.json"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip archive can hold
_DTYPE_KINDS = "biufU"
_HEADER_MOST = 64 << 20  # bytes of a header; that of a network with 1,000 layers and 22,000 classes has 2 MB
_RATIO = 100  # bytes that a deflated one may stand for, in members beyond _SMALL; trained weights come to 1.1 to 8
_SMALL = 16 << 20
_CHUNK = 1 << 20

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")
_CLOSES_FIRST = sys.platform == "win32"  # which renames no open file, and tells abandoned ones by their age
_LONG = 86_400  # seconds after which a temporary file is abandoned, where locks cannot tell
_unfinished: set[str] = set()
_folders: set[str] = set()  # in which files were held
beginning = threading.Lock()  # held while a temporary file is made and recorded


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that appears under `path` complete, or not at all.

    The bytes go to a temporary file in the same folder, reach the disk, and only then take the place of `path`, which
    is written exactly as named. Where the body raises, the temporary is removed and `path` stays as it was. A new file
    has the permissions the umask grants, a replaced one keeps its own; a symbolic link keeps pointing where it points.
    What a process that was killed leaves behind, `remove_abandoned` finds.

    Raises
    ------
    OSError
        The folder is missing or not writable, or `path` is something else than a regular file.
    """
    target = os.path.realpath(path)
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"cannot write {os.fspath(path)}: there is no folder {folder}")
    mode = _mode(target)
    try:
        with beginning:
            temporary, descriptor = _temporary(folder)
            _unfinished.add(temporary)
    except OSError as error:
        raise type(error)(f"cannot write {os.fspath(path)}: {error.strerror}") from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if mode is not None:
                os.chmod(temporary, mode)
            if not _CLOSES_FIRST:  # while it is locked: another process would take it for abandoned
                os.replace(temporary, target)
        if _CLOSES_FIRST:
            os.replace(temporary, target)
    except BaseException as error:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        if isinstance(error, OSError) and error.errno is not None:  # such as a full disk, which names no file
            raise type(error)(f"cannot write {os.fspath(path)}: {error.strerror}") from error
        raise
    finally:
        _unfinished.discard(temporary)


def _temporary(folder: str) -> tuple[str, int]:
    """A new file in a folder, open and locked: its name and descriptor."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    while True:
        name = os.path.join(folder, f".{secrets.token_hex(8)}.tmp")
        descriptor = os.open(name, flags, 0o666)  # the umask applies; tempfile's could be read by their owner only
        if lock(descriptor) and os.path.exists(name):
            return name, descriptor
        os.close(descriptor)  # another process took it for abandoned before the lock was there


def lock(descriptor: int) -> bool:
    """Lock an open file for this process, which the system undoes when it ends: whether no other one has it.

    True where the system has no such locks.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


class Held:
    """A temporary file that this process holds locked, and that may become a file of another name. Made by `hold`."""

    def __init__(self, path: str, file: BinaryIO) -> None:
        self._path, self._file = path, file

    def become(self, path: str | os.PathLike[str], content: bytes) -> None:
        """Replace the file at `path`, atomically, by this one with other content."""
        try:
            _rewrite(self._file, content)
            os.fsync(self._file.fileno())
            if _CLOSES_FIRST:
                self._file.close()
            os.replace(self._path, path)
        except OSError as error:
            self.discard()
            raise type(error)(f"cannot write {os.fspath(path)}: {error.strerror}") from error
        self._close()

    def discard(self) -> None:
        """Remove the file."""
        if _CLOSES_FIRST:
            self._file.close()
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        self._close()

    def _close(self) -> None:
        _unfinished.discard(self._path)
        self._file.close()


def hold(path: str | os.PathLike[str], content: bytes) -> Held | bytes:
    """Make a temporary file of that name, locked, or else the content of the one that another holder has.

    A file that nobody holds is what a killed process left, and is taken over.
    """
    name = os.fspath(path)
    _folders.add(os.path.dirname(name))
    while True:
        try:
            file = os.fdopen(os.open(name, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666), "r+b")
        except OSError as error:
            raise type(error)(f"cannot write {name}: {error.strerror}") from error
        if lock(file.fileno()):
            held = Held(name, file)
            try:
                if _is_at(file.fileno(), name):
                    _unfinished.add(name)
                    _rewrite(file, content)
                    return held
            except BaseException:  # such as an interrupt before the file is recorded
                held.discard()
                raise
        elif theirs := file.read(1 << 16):
            file.close()
            return theirs
        # It became something else before the lock was there, or its holder has yet to write: look again.
        file.close()
        time.sleep(0.001)


def _rewrite(file: BinaryIO, content: bytes) -> None:
    """Give an open file other content."""
    file.seek(0)
    file.truncate()
    file.write(content)
    file.flush()


def _is_at(descriptor: int, path: str) -> bool:
    """Whether an open file still has this name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False


def remove_abandoned(folder: str | os.PathLike[str]) -> int:
    """Remove the temporary files in a folder whose writers were killed; their number. Those being written stay."""
    removed = 0
    for name in os.listdir(folder):
        if not _TEMPORARY.fullmatch(name):
            continue
        path = os.path.join(folder, name)
        with suppress(OSError), open(path, "rb") as file:
            if _is_abandoned(file):
                os.unlink(path)
                removed += 1
    return removed


def _is_abandoned(file: BinaryIO) -> bool:
    if sys.platform == "win32":
        return time.time() - os.fstat(file.fileno()).st_mtime > _LONG
    return lock(file.fileno())


def discard_unfinished() -> None:
    """Remove the temporary files of this process, which is about to end without unwinding its threads.

    The caller holds `beginning` until the process ends, so that no thread begins another file.
    """
    for path in tuple(_unfinished):
        with suppress(OSError):
            os.unlink(path)
    for folder in _folders:  # an interrupt may have come before a file was recorded
        with suppress(OSError):
            remove_abandoned(folder)


def save_arrays(
    path: str | os.PathLike[str],
    header: Mapping[str, object],
    arrays: Mapping[str, npt.ArrayLike],
    *,
    compress: bool = False,
) -> None:
    """Write arrays and a header as one file, atomically.

    Parameters
    ----------
    path : path
        Written exactly as named, whatever its suffix.
    header : mapping
        What JSON holds, keys strings; ``header["kind"]`` (str) says what the file is. NumPy scalars become Python's,
        tuples become lists.
    arrays : mapping of str to array
        Bool, integer, float (16 to 64 bits) or string arrays of any shape. Stored in C order, little-endian.
    compress : bool
        Deflate the members. The same content gives the same bytes; with `compress`, as long as zlib is the same.

    Raises
    ------
    ValueError
        No ``kind``, a NaN or infinity in the header, a name that cannot be a member's, an array of objects.
    TypeError
        The header holds something that JSON cannot.
    OSError
        The file cannot be written.
    """
    if not isinstance(header.get("kind"), str):
        raise ValueError(f'header["kind"] is {header.get("kind")!r}; expected a string that says what the file holds')
    members: dict[str, memoryview[int]] = {}
    index = {}
    for name in sorted(arrays):
        array = _canonical(name, arrays[name])
        stream = io.BytesIO()
        np.lib.format.write_array(stream, array, allow_pickle=False)
        members[name] = stream.getbuffer()
        index[name] = {"dtype": array.dtype.str, "shape": list(array.shape), "sha256": _digest(members[name])}
    document = {"format": FORMAT, "version": VERSION, "header": dict(header), "arrays": index}
    text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False, default=_as_json)
    method = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_member(_HEADER, method), text.encode())
        for name, data in members.items():
            archive.writestr(_member(f"{name}.npy", method), data)


def load_arrays(
    path: str | os.PathLike[str], kind: str | tuple[str, ...] | None = None
) -> tuple[dict[str, Parsed], dict[str, Values]]:
    """Read back what `save_arrays` wrote.

    Parameters
    ----------
    path : path
        The file.
    kind : str, tuple of str or None
        What ``header["kind"]`` must be; None takes any.

    Returns
    -------
    header : dict
        The caller's header, with its ``kind``.
    arrays : dict of str to ndarray
        Writable arrays, in the order of their names.

    Raises
    ------
    OSError
        The file is missing or cannot be opened.
    ValueError
        It is not a file of this format, is truncated or damaged, was written by a newer version, or is of another kind.
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        try:
            archive = zipfile.ZipFile(file)
            text = _unpacked(archive, _HEADER, _HEADER_MOST)
        except Exception as error:  # zipfile raises errors of many kinds for broken archives
            raise ValueError(f"{name} is not an {FORMAT} file, or it is truncated or damaged: {error}") from error
        document = _checked_header(name, text)
        found = document["header"]["kind"]
        if kind is not None and found not in ((kind,) if isinstance(kind, str) else kind):
            wanted = kind if isinstance(kind, str) else " or ".join(kind)
            raise ValueError(f"{name} holds kind {found!r}; expected {wanted}")
        try:
            return document["header"], _members(archive, document["arrays"])
        except Exception as error:
            raise ValueError(f"{name} is damaged: {error}") from error


def _mode(target: str) -> int | None:
    """Permissions of the file to be replaced; None if there is none."""
    try:
        status = os.stat(target)
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(f"cannot write {target}: it is a folder")
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"cannot write {target}: it is not a regular file")
    return stat.S_IMODE(status.st_mode)


def _canonical(name: object, array: npt.ArrayLike) -> Values:
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name:
        raise ValueError(f"array name {name!r} cannot name a member of the file; expected a string without \\ or NUL")
    array = np.asarray(array)
    if array.dtype.kind not in _DTYPE_KINDS or (array.dtype.kind == "f" and array.dtype.itemsize > 8):
        raise ValueError(f"array {name!r} has dtype {array.dtype}; expected bool, integer, float64 or less, or string")
    return np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")


def _as_json(value: object) -> Json:
    if isinstance(value, np.generic):
        plain: Json = value.item()
        return plain
    raise TypeError(f"the header holds a {type(value).__name__}, which JSON cannot: put arrays among the arrays")


def _member(name: str, method: int) -> zipfile.ZipInfo:
    """A zip entry that is the same on every day, system and umask."""
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = method
    info.create_system = 3
    info.external_attr = 0o644 << 16
    return info


def _digest(data: bytearray | memoryview[int]) -> str:
    return hashlib.sha256(data).hexdigest()


def _checked_header(name: str, text: bytes | bytearray) -> dict[str, Parsed]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is damaged: its header is not JSON: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{name} is not an {FORMAT} file: its header does not say so")
    version = document.get("version")
    if type(version) is not int or version < 1:
        raise ValueError(f"{name} is damaged: its format version is {version!r}")
    if version > VERSION:
        raise ValueError(
            f"{name} has format version {version}, this fvlrp reads up to {VERSION}: install a newer fvlrp"
        )
    header = document.get("header")
    if not isinstance(header, dict) or not isinstance(header.get("kind"), str):
        raise ValueError(f"{name} is damaged: its header lacks the kind of the file")
    if not isinstance(document.get("arrays"), dict):
        raise ValueError(f"{name} is damaged: its header lacks the list of arrays")
    return document


def _members(archive: zipfile.ZipFile, index: Mapping[str, Parsed]) -> dict[str, Values]:
    expected = [_HEADER, *(f"{name}.npy" for name in index)]
    if sorted(archive.namelist()) != sorted(expected):
        raise ValueError("its members are not the arrays its header lists")
    return {name: _array(archive, name, entry) for name, entry in index.items()}


def _array(archive: zipfile.ZipFile, name: str, entry: Mapping[str, Parsed]) -> Values:
    dtype = np.dtype(entry["dtype"])
    if dtype.kind not in _DTYPE_KINDS:
        raise ValueError(f"array {name!r} has dtype {dtype}")
    shape = tuple(entry["shape"])
    if not all(type(length) is int and length >= 0 for length in shape):
        raise ValueError(f"array {name!r} has the shape {shape}")
    size = math.prod(shape) * dtype.itemsize
    # The member must describe itself as the header does, before anything of that size is allocated.
    data = _unpacked(archive, f"{name}.npy", size + 1024)  # its own header pads to a multiple of 64
    if _digest(data) != entry["sha256"]:
        raise ValueError(f"array {name!r} does not have the checksum of its header")
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0) or np.lib.format.read_array_header_1_0(stream) != (shape, False, dtype):
        raise ValueError(f"array {name!r} is not the {dtype} array of shape {shape} that its header lists")
    values = np.frombuffer(data, dtype, offset=stream.tell())
    return values.reshape(shape).copy()


def _unpacked(archive: zipfile.ZipFile, name: str, most: int) -> bytearray:
    """The bytes of a member, at most `most`: an archive of a megabyte can claim to hold, and unpack to, gigabytes."""
    info = archive.getinfo(name)
    if info.file_size > most:
        raise ValueError(f"its member {name} unpacks to {info.file_size} bytes; expected at most {most}")
    if info.file_size > max(_SMALL, _RATIO * info.compress_size):
        raise ValueError(
            f"its member {name} unpacks from {info.compress_size} to {info.file_size} bytes, as no weights do"
        )
    data = bytearray()
    with archive.open(info) as member:
        while chunk := member.read(_CHUNK):
            data += chunk
            if len(data) > most:
                raise ValueError(f"its member {name} unpacks to more than {most} bytes")
    return data
