"""Checkpoints from which an interrupted training resumes bit for bit.

Keras's ``BackupAndRestore`` loses the optimizer's settings, the best loss and the history. These
checkpoints hold every variable of the model (with the states of its random generators), of the
optimizer and of the training loop, in one file that is written atomically.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from cxr_helpers.system import accelerators, array_files, digests, files


def key(model: keras.Model, *arrays: np.ndarray | None, **settings: object) -> str:
    """Return a digest of everything that determines a training, under which it is stored.

    Parameters
    ----------
    model : keras.Model
        Compiled, with its optimizer built, before the first step: the initial weights are hashed,
        and the files in which its layers are defined, if Keras does not define them.
    *arrays : ndarray or None
        Images and targets, hashed by type, shape and content.
    **settings : object
        Anything else that matters, such as the seed; distinguished by ``repr``. The device counts
        too where it is not the CPU, see ``accelerators.key``.
    """
    digest = hashlib.sha256("".join([keras.__version__, *accelerators.key()]).encode())
    settings = {name: repr(value) for name, value in settings.items()}
    digest.update(json.dumps([_architecture(model), settings, *digests.own_code(model)]).encode())
    for array in [*_state(model).values(), *arrays]:
        if array is not None:
            array = np.ascontiguousarray(array)
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()


def _architecture(model: keras.Model) -> str:
    """Return layers, loss and optimizer as text, without the numbers in Keras's automatic names."""
    text = model.to_json()
    layers = [layer["config"]["name"] for layer in json.loads(text)["config"]["layers"]]
    text += json.dumps(keras.saving.serialize_keras_object(model.optimizer))
    # under mixed_float16, Keras wraps the optimizer in one that scales the loss
    inner = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    names = [model.name, model.optimizer.name, *layers]
    if inner is not model.optimizer:
        names.append(inner.name)
    for position, name in enumerate(names):
        text = text.replace(f'"{name}"', f'"#{position}"')
    return text


def save(
    path: Path,
    model: keras.Model,
    *,
    key: str,
    progress: Mapping[str, object],
    extra: Mapping[str, Sequence[np.ndarray]],
) -> None:
    """Write a checkpoint atomically, replacing the previous one.

    Parameters
    ----------
    path : Path
        Ends in ``.npz``; its folder is created if it is missing.
    model : keras.Model
        Its variables and its optimizer's are saved.
    key : str
        From ``key``, taken before the training began.
    progress : mapping
        State of the training loop, serialisable as JSON. Floats are restored bit for bit.
    extra : mapping of str to sequence of ndarray
        Further arrays, such as the best weights so far.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = _state(model) | {
        f"{name}/{i}": array for name, values in extra.items() for i, array in enumerate(values)
    }
    with files.replacing(path) as partial, open(partial, "wb") as file:
        np.savez(file, key=key, progress=json.dumps(dict(progress)), **arrays)


def restore(
    path: Path, model: keras.Model, *, key: str
) -> tuple[dict, dict[str, list[np.ndarray]]] | None:
    """Restore the state of a model and its optimizer from a checkpoint.

    Returns
    -------
    tuple of dict and dict, or None
        ``progress`` and ``extra`` as they were saved. None, with the model unchanged, if there
        is no checkpoint, it is damaged, or it belongs to another training.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
            if str(file["key"]) != key:
                return None
            arrays = {name: file[name] for name in file.files}
        progress = json.loads(str(arrays["progress"]))
    except array_files.DAMAGED:
        return None
    if not _variables(model).keys() <= arrays.keys():
        return None
    for name, variable in _variables(model).items():
        variable.assign(arrays.pop(name))
    extra: dict[str, list[np.ndarray]] = {}
    for name, array in arrays.items():  # in the order in which they were saved
        if "/" in name:
            extra.setdefault(name.split("/")[0], []).append(array)
    return progress, extra


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Return every variable that training changes, named by owner and position."""
    return {
        f"{owner}-{i}": variable
        for owner, variables in (
            ("model", model.variables),
            ("optimizer", model.optimizer.variables),
        )
        for i, variable in enumerate(variables)
    }


def _state(model: keras.Model) -> dict[str, np.ndarray]:
    return {
        name: keras.ops.convert_to_numpy(variable) for name, variable in _variables(model).items()
    }
