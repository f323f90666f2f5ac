"""The process in which libraries read binary files of other programs; `fastzsl.files.sandbox` runs it.

A damaged file can make the HDF5 library or SciPy's reader of MATLAB files crash, loop forever or use all memory.
So each file is read in a fork of this process with a limit on time and memory, which sends back only plain arrays.
This module imports nothing of fastzsl, because it must start quickly.

Input: a line of JSON with kind ("hdf5" or "mat"), path, arrays, maps and seconds. Output: 8 bytes with the length,
then an .npz file. Its entry `reply` is JSON, either {"error": ...} or texts, maps and made_by. The other entries are
the arrays.
"""

from __future__ import annotations

import io
import json
import math
import os
import resource
import signal
import struct
import sys
from typing import Any, BinaryIO

import h5py
import numpy as np

MEMORY = 6 << 30
NO_MEMORY = 3
"""Exit code of a child that has not enough memory even for an answer."""
LARGEST_ARRAY = 2 << 30
WORDS = {"hdf5": "HDF5", "mat": "MATLAB"}


class Refused(Exception):
    """The file can be read but is not accepted; the message says why."""


Reply = tuple[dict[str, Any], dict[str, np.ndarray]]


def read_mat(path: str, arrays: list[str]) -> Reply:
    """Those of the named variables that a MATLAB file of version 5 has."""
    reply: dict[str, Any] = {"texts": {}, "maps": None, "made_by": None}
    found: dict[str, np.ndarray] = {}
    values = scipy_io().loadmat(path, variable_names=arrays)
    for name in arrays:
        if name not in values:
            continue
        value = values[name]
        if isinstance(value, np.ndarray) and value.dtype.kind in "uif" and value.ndim >= 2:
            found[name] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "OU":
            reply["texts"][name] = [_cell_text(cell, name) for cell in value.ravel()]
        else:
            raise Refused(f"{name} is neither numbers nor a cell array of texts")
    return reply, found


def _cell_text(cell: Any, name: str) -> str:
    text = np.asarray(cell)
    if text.dtype.kind != "U" or text.size > 1:
        raise Refused(f"{name} is neither numbers nor a cell array of texts")
    return "".join(text.ravel().tolist()).rstrip()


def scipy_io() -> Any:
    """Import SciPy before the fork that reads the first MATLAB file, so that later forks have it too."""
    import scipy.io

    return scipy.io


def read_hdf5(path: str, arrays: list[str], maps: str | None) -> Reply:
    """Layout of the data set `maps`, and the arrays that the file has of those named."""
    reply: dict[str, Any] = {"texts": {}, "maps": None, "made_by": None}
    found: dict[str, np.ndarray] = {}
    with h5py.File(path, "r", locking=False) as file:  # a writer may have locked the file
        for name in file:
            link = file.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink):
                raise Refused(
                    f"{name} is an external link to {link.filename}; links to other files are refused"
                )
        made_by = file.attrs.get("fastzsl")
        reply["made_by"] = made_by if isinstance(made_by, str) else None
        for name in arrays:
            if (data := _plain(file, name)) is None:
                continue
            values = _values(file, data, name)
            if isinstance(values, list):
                reply["texts"][name] = values
            else:
                found[name] = values
        if maps is not None and (data := _plain(file, maps)) is not None:
            reply["maps"], offsets = _layout(data)
            if offsets is not None:
                found["maps offsets"] = offsets
    return reply, found


def _plain(file: h5py.File, name: str) -> h5py.Dataset | None:
    """The data set `name` if its bytes are in this file."""
    if name not in list(file):
        return None
    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise Refused(f"{name} is a soft link; wanted a data set")
    data = file[name]
    if not isinstance(data, h5py.Dataset):
        raise Refused(f"{name} is a group; wanted a data set")
    if data.external is not None or data.is_virtual:
        raise Refused(f"{name} keeps its data in another file; links to other files are refused")
    if data.shape is None:
        raise Refused(f"{name} is empty; wanted an array")
    return data


def _values(file: h5py.File, data: h5py.Dataset, name: str) -> np.ndarray | list[str]:
    if data.size * data.dtype.itemsize > LARGEST_ARRAY:
        raise Refused(f"{name} has shape {data.shape}; more than {LARGEST_ARRAY >> 30} GiB are not read")
    if h5py.check_string_dtype(data.dtype) is not None:
        return [str(text) for text in data.asstr()[...].ravel()]
    if data.dtype == h5py.ref_dtype:  # a cell array of a MATLAB 7.3 file: each cell is a text in 16-bit units
        return [_matlab_text(file[reference], name) for reference in data[...].ravel()]
    if data.dtype.kind not in "iufb":
        raise Refused(f"{name} has type {data.dtype}; wanted numbers or texts")
    return np.ascontiguousarray(data[...])


def _matlab_text(cell: h5py.Dataset, name: str) -> str:
    if not isinstance(cell, h5py.Dataset) or cell.dtype.kind not in "ui" or cell.size > 10_000:
        raise Refused(f"{name} has a cell that is no text")
    return "".join(chr(code) for code in cell[...].ravel(order="F"))


def _layout(data: h5py.Dataset) -> tuple[dict[str, Any], np.ndarray | None]:
    """Shape and type, and the byte at which each row starts, if rows are stored without compression."""
    layout = {"shape": list(data.shape), "dtype": data.dtype.str}
    if data.ndim < 1 or data.id.get_create_plist().get_nfilters():
        return layout, None
    row_bytes = data.dtype.itemsize * math.prod(data.shape[1:])
    if data.chunks is None:
        start = data.id.get_offset()
        return layout, None if start is None else start + row_bytes * np.arange(len(data), dtype=np.int64)
    if data.chunks != (1, *data.shape[1:]):
        return layout, None
    if len(data) > os.stat(data.file.filename).st_size:
        raise Refused(f"the file is too short for {data.shape}")
    offsets = np.full(len(data), -1, dtype=np.int64)

    def note(chunk: Any) -> None:
        if chunk.filter_mask == 0 and chunk.size == row_bytes:
            offsets[chunk.chunk_offset[0]] = chunk.byte_offset

    data.id.chunk_iter(note)
    return layout, offsets


def answer(request: dict[str, Any], out: BinaryIO) -> None:
    """Read one file and write the reply; a failure is written as a reply too."""
    found: dict[str, np.ndarray] = {}
    try:
        if request["kind"] == "mat":
            reply, found = read_mat(request["path"], request["arrays"])
        else:
            reply, found = read_hdf5(request["path"], request["arrays"], request["maps"])
    except Refused as error:
        reply = {"error": str(error)}
    except MemoryError:
        reply = {"error": "not enough memory to read it"}
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0][:120]
        reply = {"error": f"not a whole {WORDS[request['kind']]} file ({said})"}
    text = np.frombuffer(json.dumps(reply).encode(), dtype=np.uint8)
    np.savez(out, reply=text, **found)  # type: ignore[arg-type]


def limit(what: int, most: int) -> None:
    """Limit a resource of this process; a lower limit that the user has set stays."""
    own = resource.getrlimit(what)[1]
    most = most if own == resource.RLIM_INFINITY else min(most, own)
    resource.setrlimit(what, (most, most))


def in_a_fork(request: dict[str, Any]) -> bytes:
    """The reply of a child process; if it dies, the reply says how."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            seconds = int(request["seconds"])
            limit(resource.RLIMIT_CORE, 0)
            limit(resource.RLIMIT_CPU, seconds)
            if sys.platform == "linux":
                limit(resource.RLIMIT_AS, MEMORY)
            signal.alarm(10 * seconds)
            reply = io.BytesIO()
            answer(request, reply)
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(reply.getbuffer())
            os._exit(0)
        except MemoryError:
            os._exit(NO_MEMORY)
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        reply_bytes = pipe.read()
    _, status = os.waitpid(child, 0)
    if status == 0:
        return reply_bytes
    code = os.waitstatus_to_exitcode(status)
    reader = f"the reader of {WORDS[request['kind']]} files"
    if code == NO_MEMORY:
        said = f"{reader} has not enough memory"
    elif code in (-signal.SIGXCPU, -signal.SIGALRM, -signal.SIGKILL):
        said = f"damaged: {reader} did not end in {request['seconds']} s on it"
    else:
        said = f"damaged: {reader} crashed ({f'signal {-code}' if code < 0 else f'code {code}'}) on it"
    dead = io.BytesIO()
    text = json.dumps({"error": said})
    np.savez(dead, reply=np.frombuffer(text.encode(), dtype=np.uint8))
    return dead.getvalue()


def serve() -> None:
    """Answer requests until the parent process closes the input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if request["kind"] == "mat":
            scipy_io()
        reply = in_a_fork(request)
        sys.stdout.buffer.write(struct.pack("<q", len(reply)))
        sys.stdout.buffer.write(reply)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    serve()
