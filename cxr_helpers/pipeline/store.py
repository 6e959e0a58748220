"""A store of cached results, each under a digest of everything that determines it.

A notebook that is executed again because a caption or a colour has changed reads its trainings,
predictions, embeddings, heat maps and t-SNE maps from here. ``joblib.Memory`` does the same with
pickles, which can run code when they are read; here arrays are stored as ``.npz`` without objects.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_helpers.pipeline import background, dependencies
from cxr_helpers.system import accelerators, array_files, digests, environment, files

LIMIT = 5 * 10**9  # bytes of the whole store
ROOM = LIMIT // 20  # reserved for a training's checkpoint, whose size is not known beforehand
OVERHEAD = 512  # bytes in the file for each array, roughly
_COUNTED = re.compile(r'"(input_layer|keras_tensor)(_\d+)?"')  # numbered by Keras within a process


class Store:
    """A folder of results, each in a file named by its key.

    Parameters
    ----------
    folder : Path
        Created if it is missing.
    reuse : bool
        Whether stored results are returned; otherwise they are computed and stored again.
    limit : int
        Bytes; beyond that, the least recently used results are removed.
    record : Path, optional
        File to which each requested key is appended before its result exists:
        ``housekeeping.clean`` does not remove what the records of a run name.
    log : callable, optional
        Receives the lines of functions that log their progress.

    Attributes
    ----------
    used : list of str
        Requested keys, in order.
    """

    def __init__(
        self,
        folder: Path,
        *,
        reuse: bool = True,
        limit: int = LIMIT,
        record: Path | None = None,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.folder, self.reuse, self.limit, self.record = folder, reuse, limit, record
        self.log = log
        self.used: list[str] = []

    def checkpoint(self, key: str) -> Path:
        """Return the path of the training of this key, unfinished or finished."""
        return self._place(key, room=min(ROOM, self.limit // 20))

    def call(self, function: Callable, *args: object, **kwargs: object):
        """Return ``function(*args, **kwargs)``, computed once for each key.

        The key combines the function's name, its code (for this package: the module and those that
        it imports), the versions of the libraries, the number of threads, the device that TensorFlow
        computes on where it is not the CPU, and all arguments: arrays by content, Keras models by
        architecture and weights, scikit-learn estimators by their parameters.

        Parameters
        ----------
        function : callable
            A function of this package or of a library, or an estimator's method. Not one that is
            defined in a notebook: the global variables that it reads would not be in the key.
            Its parameters ``checkpoint`` and ``log``, if it has them, are provided: a training
            within it that was interrupted resumes.
        *args, **kwargs
            Plain data, arrays, data frames, models, data classes, and callables as above.

        Returns
        -------
        object
            An array, a number, a data frame (with the index 0, 1, …), or a mapping, list or tuple
            of these.

        Raises
        ------
        TypeError
            If an argument or the result is of another type.
        """
        path = self._place(self._key(function, args, kwargs), room=0)
        return self._at(path, function, *args, **kwargs)

    def _at(self, path: Path, function: Callable, /, *args: object, **kwargs: object):
        """Return the result in a file; compute and store it where it is missing or damaged."""
        if path.is_file():
            with suppress(*array_files.DAMAGED):
                return _load(path)
        known = _parameters(function)
        provided = {"checkpoint": self.checkpoint, "log": self.log}
        provided = {name: value for name, value in provided.items() if name in known}
        result = function(*args, **provided | kwargs)
        arrays: dict[str, np.ndarray] = {}
        structure = json.dumps(_packed(result, arrays))
        size = OVERHEAD + sum(OVERHEAD + array.nbytes for array in arrays.values())
        if size <= self.limit // 4:
            self.trim(room=size)
            with files.replacing(path) as partial, open(partial, "wb") as file:
                np.savez(file, shape=structure, **arrays)
        return _unpacked(json.loads(structure), arrays)  # as a later call returns it

    def begin(self, function: Callable, *args: object, **kwargs: object) -> Callable[[], object]:
        """Begin to compute ``call(function, *args, **kwargs)``; return a function that returns it.

        That is done in the second process of this kernel, see ``background``; where there is none,
        or if it fails there, in this one, when the result is asked for: until then, the arguments
        must not be changed.
        """
        path, wait = self._place(self._key(function, args, kwargs), room=0), None
        if background.process and not path.is_file():
            other = Store(self.folder, reuse=self.reuse, limit=self.limit, record=self.record)
            other.used = list(self.used)
            wait = background.process.begin(other._at, path, function, *args, **kwargs)

        def result() -> object:
            if wait is not None:
                wait()
            return self._at(path, function, *args, **kwargs)

        return result

    def _key(self, function: Callable, args: tuple, kwargs: Mapping) -> str:
        made_with = [environment.versions(), environment.threads(), *accelerators.key()]
        digest = hashlib.sha256(json.dumps(made_with).encode())
        for value in (function, list(args), dict(kwargs)):
            for part in _described(value):
                digest.update(part)
        return digest.hexdigest()

    def _place(self, key: str, *, room: int) -> Path:
        self.used.append(key)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{key}.npz"
        if key not in self.used[:-1]:
            if self.record is not None:
                with open(self.record, "a", encoding="ascii") as file:
                    file.write(f"{key}\n")
            if not self.reuse:
                path.unlink(missing_ok=True)
            elif path.is_file():
                with suppress(FileNotFoundError):  # another process has just removed it
                    os.utime(path)
            self.trim(room=room)
        return path

    def trim(self, *, room: int = 0) -> None:
        """Remove the least recently used results until ``room`` bytes fit, except those in use.

        What a killed process left half-written goes first.
        """
        files.remove_leftovers(self.folder, deep=False)
        entries = []
        for path in _entries(self.folder):
            with suppress(FileNotFoundError):  # another process has just removed it
                status = path.stat()
                entries.append((status.st_mtime_ns, status.st_size, path))
        entries.sort()
        excess = sum(size for _, size, _ in entries) + room - self.limit
        for _, size, path in entries:
            if excess > 0 and path.stem not in self.used:
                with suppress(OSError):  # another process has it open, on Windows
                    path.unlink()
                    excess -= size


def _entries(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*.npz") if not path.name.startswith(files.PARTIAL)]


def _described(value: object) -> Iterable[bytes]:
    """Yield bytes that identify a value."""
    if value is None or isinstance(value, bool | int | float | str):
        yield f"{type(value).__name__} {value!r};".encode()
    elif isinstance(value, np.generic):
        yield from _described(value.item())
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            yield from _described(value.tolist())
            return
        yield f"array {value.dtype} {value.shape};".encode()
        yield from _bytes_of(value)
    elif isinstance(value, pd.DataFrame):
        yield from _described({str(name): value[name] for name in value})
    elif isinstance(value, pd.Series | pd.Index):
        yield from _described(np.asarray(value))
    elif isinstance(value, Mapping):
        yield f"mapping {len(value)};".encode()
        for name, item in value.items():
            yield from _described(str(name))
            yield from _described(item)
    elif isinstance(value, list | tuple):
        yield f"list {len(value)};".encode()
        for item in value:
            yield from _described(item)
    elif hasattr(value, "get_weights") and hasattr(value, "get_config"):  # a Keras model
        config = {name: v for name, v in value.get_config().items() if name != "name"}
        config = json.dumps(config, default=str, sort_keys=True)
        yield _COUNTED.sub('"#"', config).encode()
        yield from _described(value.get_weights())
        if code := digests.own_code(value):
            yield from _described(code)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        yield from _described([type(value).__qualname__, fields])
    elif hasattr(value, "get_params"):  # an estimator, not fitted
        yield from _described([type(value).__qualname__, value.get_params()])
    elif isinstance(value, functools.partial):
        yield from _described([value.func, value.args, value.keywords])
    elif inspect.ismethod(value):
        code = _code(type(value.__self__).__module__)
        yield from _described([value.__name__, value.__self__, code])
    elif callable(value) and getattr(value, "__module__", "__main__") != "__main__":
        yield from _described([value.__module__, value.__qualname__, _code(value.__module__)])
    else:
        raise TypeError(f"{value!r} of type {type(value).__name__} cannot be part of a key")


def _bytes_of(array: np.ndarray) -> Iterable[memoryview]:
    """Yield an array's bytes in order; a view such as mirrored images is copied a part at a time."""
    if array.ndim == 0:
        yield np.ascontiguousarray(array).data
        return
    for part in array_files.parts(array):
        yield np.ascontiguousarray(array[part]).data


def _parameters(function: Callable) -> Iterable[str]:
    """Return the names of a function's parameters, as far as they are known."""
    try:
        return inspect.signature(function).parameters
    except ValueError:  # it is not written in Python
        return ()


def _code(module: str) -> dict[str, str]:
    """Return the digests of a module of this package and of those that it imports."""
    return dependencies.digest_each(dependencies.modules_of([f"import {module}"]))


def _packed(value: object, arrays: dict[str, np.ndarray]) -> object:
    """Move a result's arrays into ``arrays``; return its structure as plain JSON."""
    if isinstance(value, pd.DataFrame):
        return {"frame": {str(name): _packed(value[name].to_numpy(), arrays) for name in value}}
    if isinstance(value, Mapping):
        return {"mapping": {str(name): _packed(item, arrays) for name, item in value.items()}}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [_packed(item, arrays) for item in value]}
    array = np.asarray(value)
    if array.dtype.hasobject and all(isinstance(item, str) for item in array.flat):
        array = np.asarray(array.tolist())
    if array.dtype.hasobject or array.dtype.kind not in "biufU":
        raise TypeError(f"a result of type {type(value).__name__} cannot be stored")
    name = str(len(arrays))
    arrays[name] = array
    return {"array" if isinstance(value, np.ndarray) else "number": name}


def _unpacked(structure: dict, arrays: Mapping[str, np.ndarray]) -> object:
    ((kind, content),) = structure.items()
    if kind == "frame":
        return pd.DataFrame({name: _unpacked(item, arrays) for name, item in content.items()})
    if kind == "mapping":
        return {name: _unpacked(item, arrays) for name, item in content.items()}
    if kind in ("list", "tuple"):
        items = [_unpacked(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    return arrays[content] if kind == "array" else arrays[content].item()


def _load(path: Path) -> object:
    with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return _unpacked(json.loads(str(arrays.pop("shape"))), arrays)
