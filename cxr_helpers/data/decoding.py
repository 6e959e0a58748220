"""Decode each image once, to 8-bit grey at the working size, and keep it in a cache."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import PIL
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError, features

from cxr_helpers.data.scans import Scan
from cxr_helpers.system import array_files, environment, files, portable
from cxr_helpers.system.errors import DataError

PIXELS = "pixels.npy"  # of an entry of the cache
UNREADABLE = (  # raised by Pillow, beside OSError; struct.error where the EXIF data are truncated
    *(UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError, struct.error),
)
DECODER = 3  # to be raised when the same file would give other pixels
BITS = (8, 10, 12, 14, 16)  # of grey levels
FRAMINGS = ("squeeze", "pad")
UPRIGHT = {  # what undoes an EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TRANSIENT = frozenset(  # errors of the machine or a network, not of the file
    {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET, errno.EAGAIN, errno.ENOMEM}
)
MAXIMUM_PIXELS = 100_000_000
MAXIMUM_UNREADABLE = 0.01  # share of the images, or the next number where that is larger
ALWAYS_ALLOWED = 3  # unreadable images, however few there are
AT_ONCE = 32  # images that a thread resizes before it takes others


def decode(
    source: Path | BinaryIO | np.ndarray, size: int, *, framing: str = "squeeze"
) -> tuple[np.ndarray, dict]:
    """Decode one image to a square.

    JPEG files are decoded at the smallest of the format's reduced scales (1/2, 1/4, 1/8) whose
    side is at least twice ``size``: on 90 originals the result differs by 0.4 grey levels on
    average from full decoding, at the next smaller scale by 1.0. EXIF orientation is applied;
    grey levels of more than 8 bits are scaled by the bits that they need (10, 12, 14 or 16), not clipped.

    Parameters
    ----------
    source : Path, binary file or ndarray of uint8, shape (height, width)
        A JPEG or PNG file of any mode, at most 100 megapixels; or grey levels, 0 to 255.
    size : int
        Height and width of the result.
    framing : str
        ``"squeeze"`` to the square, as in the course report, or ``"pad"`` with black, which
        keeps the aspect ratio.

    Returns
    -------
    pixels : ndarray of uint8, shape (size, size)
    facts : dict
        ``width`` and ``height`` in pixels as stored, ``mode`` (Pillow's), ``rotated``.

    Raises
    ------
    OSError
        If the file is damaged, truncated, too large, or not an image.
    ValueError
        If ``framing`` is neither of the two.
    """
    if framing not in FRAMINGS:
        raise ValueError(f"framing {framing!r} is not one of {', '.join(FRAMINGS)}")
    try:
        with _opened(source) as image:
            facts = {"width": image.width, "height": image.height, "mode": image.mode}
            if image.width * image.height > MAXIMUM_PIXELS:
                raise OSError(f"{image.width} × {image.height} pixels is too large")
            facts["rotated"] = image.getexif().get(ExifTags.Base.Orientation) in UPRIGHT
            image.draft("L", (2 * size, 2 * size))
            grey = _to_grey(upright(image))
            longest = max(grey.size)
            inner = (
                (size, size)
                if framing == "squeeze"
                else tuple(max(1, round(side * size / longest)) for side in grey.size)
            )
            grey = grey.resize(inner, Image.Resampling.BICUBIC, reducing_gap=3.0)
            if framing == "pad":
                grey = ImageOps.pad(grey, (size, size), color=0)
    except UNREADABLE as error:
        raise OSError(f"not a readable image: {error}") from error
    return np.asarray(grey, dtype=np.uint8), facts


def upright(image: Image.Image) -> Image.Image:
    """Return an image with its EXIF orientation applied.

    ``ImageOps.exif_transpose`` also writes the other EXIF data again, which fails where one of them is
    damaged.
    """
    method = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation))
    return image if method is None else image.transpose(method)


def _opened(source: Path | BinaryIO | np.ndarray) -> Image.Image:
    if isinstance(source, np.ndarray):
        return Image.fromarray(source)
    return Image.open(source, formats=("JPEG", "PNG"))


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        return Image.fromarray(_to_8_bits(np.asarray(image, dtype=np.float64)))
    if image.mode in {"P", "PA", "LA", "RGBA"}:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image)
    return image.convert("L")


def _to_8_bits(wide: np.ndarray) -> np.ndarray:
    """Return grey levels of more than 8 bits as 8-bit ones.

    The full range is that of the fewest bits, of those that detectors have, that hold the highest
    level; levels that are no such integers are stretched to their own range.
    """
    low, high = 0.0, next((2.0**n - 1 for n in BITS if wide.max() < 2**n), np.inf)
    if wide.min() < 0 or not np.isfinite(high) or not np.array_equal(wide, np.round(wide)):
        low, high = wide.min(), wide.max()
    return np.uint8((wide - low) * (255.0 / (high - low) if high > low else 0.0))


def digest_each(scan: Scan) -> pd.Series:
    """Return the SHA-256 of each image of a scan, in its order; the reason where it has none."""

    def attempt(name: str) -> str:
        try:
            return scan.sha256(name)
        except OSError as error:
            return str(error.strerror)

    with ThreadPoolExecutor(environment.threads()) as pool:
        return pd.Series(list(pool.map(attempt, scan.files["file"])), name="sha256", dtype=object)


def fingerprint(sha256: pd.Series) -> str:
    """Return one digest of a set of images: SHA-256 of their sorted digests, one per line."""
    return hashlib.sha256("\n".join(sorted(sha256)).encode()).hexdigest()


def decode_all(
    scan: Scan, size: int, *, cache_dir: str | Path, framing: str = "squeeze"
) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Return all images of a scan from the cache, decoding them there first if need be.

    The name of the cache entry depends on the content of the images, the size, and the versions of
    the decoding libraries. The entry appears under that name only when it is complete, so that two
    runs may create it at the same time.

    Parameters
    ----------
    scan : Scan
        The images.
    size : int
        Height and width of the results.
    framing : str
        As for ``decode``.
    cache_dir : path
        Folder of the cache; created if it is missing.

    Returns
    -------
    pixels : ndarray of uint8, shape (n, size, size), memory-mapped, read-only
        The readable images.
    table : pandas.DataFrame
        ``scan.files`` of the readable images with ``sha256``, ``width``, ``height``,
        ``mode``, ``rotated``; row i belongs to ``pixels[i]``.
    unreadable : pandas.DataFrame
        The others: ``file``, ``reason``.

    Raises
    ------
    DataError
        If more than three images and more than 1 % of them cannot be read, or none can.
    """
    sha256 = digest_each(scan)
    settings = f"{size} {framing} {DECODER} {_library()}"
    recipe = "\n".join([*(scan.files["file"] + " " + sha256), settings])
    entry = Path(cache_dir) / hashlib.sha256(os.fsencode(recipe)).hexdigest()[:32]
    if entry.is_dir():
        try:
            return _read(entry, scan)
        except (OSError, ValueError, EOFError):  # damaged since it was written
            shutil.rmtree(entry)
    _fill(entry, scan, sha256, size, framing)
    return _read(entry, scan)


def _library() -> str:
    """Return the versions of the decoding libraries, on which the pixels depend."""
    return (
        f"pillow {PIL.__version__} jpeg {features.version('jpg')} zlib {features.version('zlib')}"
    )


def _read(entry: Path, scan: Scan) -> tuple[np.ndarray, pd.DataFrame, pd.DataFrame]:
    """Return what an entry holds, with classes, folders and groups as the scan has them now."""
    decoded, unreadable = (pd.read_csv(entry / name) for name in ("table.csv", "unreadable.csv"))
    own = [name for name in scan.files if name != "file" and name in decoded]
    table = scan.files.merge(decoded.drop(columns=own), on="file", validate="one_to_one")
    pixels = portable.load_array(entry / PIXELS)
    if len(table) != len(pixels):  # each row belongs to the image at its position
        raise ValueError(f"{entry}: {len(pixels)} images and {len(table)} rows")
    return pixels, table, unreadable


def _fill(entry: Path, scan: Scan, sha256: pd.Series, size: int, framing: str) -> None:
    """Decode into a temporary folder beside ``entry``, then give it that name."""

    def attempt(name: str) -> tuple[np.ndarray, dict] | str:
        try:
            return decode(scan.image(name), size, framing=framing)
        except OSError as error:
            if error.errno in TRANSIENT:
                error.filename = error.filename or name  # a fault of the disk is reported as such
                problem = f"{name} cannot be read now ({error.strerror})"
                raise DataError(
                    f"{problem}: check where it is stored, then repeat the command"
                ) from error
            return (error.strerror or str(error)).split("\n")[0].replace(f"{scan.root}{os.sep}", "")

    table = scan.files[["file"]].assign(sha256=sha256)
    entry.parent.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(entry.parent)
    with files.temporary_folder(entry.parent) as work:
        good, facts, bad = [], [], []
        with (
            array_files.appending(work / PIXELS, (len(table), size, size), np.uint8) as append,
            ThreadPoolExecutor(environment.threads()) as pool,
        ):
            for position, result in enumerate(pool.map(attempt, table["file"])):
                if isinstance(result, str):
                    bad.append((table["file"][position], result))
                else:
                    append(result[0])
                    good.append(position)
                    facts.append(result[1])
        if len(bad) > max(ALWAYS_ALLOWED, MAXIMUM_UNREADABLE * len(table)) or not good:
            raise DataError(
                f"{len(bad)} of {len(table)} images cannot be read (up to {ALWAYS_ALLOWED}, or "
                f"{MAXIMUM_UNREADABLE:.0%}, are left out), first {bad[0][0]}: {bad[0][1]}; "
                "copy the data again or remove these files"
            )
        readable = table.iloc[good].reset_index(drop=True)
        pd.concat([readable, pd.DataFrame(facts)], axis=1).to_csv(work / "table.csv", index=False)
        pd.DataFrame(bad, columns=["file", "reason"]).to_csv(work / "unreadable.csv", index=False)
        portable.publish_folder(work, entry)


def at_size(decoded: np.ndarray, size: int) -> np.ndarray:
    """Return the images of a cache entry at a smaller size, kept beside them.

    Parameters
    ----------
    decoded : ndarray of uint8, shape (n, larger, larger), memory-mapped except on Windows
        From ``decode_all``.
    size : int

    Returns
    -------
    ndarray of uint8, shape (n, size, size), memory-mapped and read-only where ``decoded`` is
        As ``resize`` returns them.
    """
    if not isinstance(decoded, np.memmap):  # on Windows, where images are in memory
        return resize(decoded, size)
    path = Path(decoded.filename).with_name(f"pixels-{size}.npy")
    with contextlib.suppress(OSError, ValueError, EOFError):  # missing, or damaged
        return portable.load_array(path)
    shape = (len(decoded), size, size)
    with (
        files.replacing(path) as partial,
        array_files.appending(partial, shape, np.uint8) as append,
    ):
        for part in array_files.parts(decoded):
            for image in resize(decoded[part], size):
                append(image)
    return portable.load_array(path)


def shrink(images: np.ndarray, size: int, *, rows: np.ndarray | None = None) -> np.ndarray:
    """Return images, all or some rows, reduced by averaging: uint8, shape (n, size, size)."""
    return _resampled(images, size, Image.Resampling.BOX, rows)


def resize(images: np.ndarray, size: int) -> np.ndarray:
    """Return images resized with antialiasing (bicubic): ndarray of uint8, shape (n, size, size)."""
    return _resampled(images, size, Image.Resampling.BICUBIC)


def _resampled(
    images: np.ndarray, size: int, kind: Image.Resampling, rows: np.ndarray | None = None
) -> np.ndarray:
    rows = np.arange(len(images)) if rows is None else rows
    resampled = np.empty((len(rows), size, size), np.uint8)

    def resample(start: int) -> None:
        for number, row in enumerate(rows[start : start + AT_ONCE], start):
            resampled[number] = Image.fromarray(images[row]).resize((size, size), kind)
        if start % 1024 == 0:
            array_files.release(images)

    with ThreadPoolExecutor(environment.threads()) as pool:  # Pillow lets go of Python's lock
        for _ in pool.map(resample, range(0, len(rows), AT_ONCE)):
            pass  # raises what a thread raised
    return resampled
