"""Download the published images, or lung outlines for them, completely or not at all.

Kermany, Zhang, Goldbaum (2018), Mendeley Data V2, doi:10.17632/rscbjbr9sj.2, CC BY 4.0.
"""

from __future__ import annotations

import os
import sys
import zipfile
from pathlib import Path

import pandas as pd

from cxr_helpers.data import decoding
from cxr_helpers.system import digests, files, portable
from cxr_helpers.system.errors import DataError

# The version is pinned: a cached copy is then found without the network.
KAGGLE_HANDLE = "paultimothymooney/chest-xray-pneumonia/versions/2"
KAGGLE_BYTES = 2_400_000_000  # about; unpacked it takes as much again
KAGGLE_PAGE = "kaggle.com/datasets/paultimothymooney/chest-xray-pneumonia"
KAGGLE_INPUT = Path("/kaggle/input")  # where a Kaggle notebook has the data sets that it was given
MENDELEY_URL = (
    "https://data.mendeley.com/public-files/datasets/rscbjbr9sj/files/"
    "f12eaf6d-6023-432f-acc9-80c9d7393433/file_downloaded"
)
MENDELEY_PAGE = "doi.org/10.17632/rscbjbr9sj.2"
MENDELEY_BYTES = 1_235_512_464
ARCHIVE = "ChestXRay2017.zip"
V7_COMMIT = "51fca0d0d089b2fa7b0b95f0aed32ebaebd561f2"
V7_PAGE = "github.com/v7labs/covid-19-xray-dataset"
V7_URL = f"https://{V7_PAGE}/archive/{V7_COMMIT}.zip"
V7_FOLDER = "annotations/all-images-semantic-masks"
V7_FINGERPRINT = "ed94edcb2ac10d5d2a8beeab0626993e47338b4b7a9ca8002e32d6f01bb37b2d"


def kaggle_cache() -> Path:
    """Return the folder where kagglehub keeps its downloads."""
    return Path(os.environ.get("KAGGLEHUB_CACHE") or Path.home() / ".cache" / "kagglehub")


def kaggle_cached() -> Path | None:
    """Return the folder of Kaggle's copy if it is here; the network is not used.

    A Kaggle notebook has it in one of two places, other machines where kagglehub downloads it.
    """
    owner, name, _, version = KAGGLE_HANDLE.split("/")
    for place in (KAGGLE_INPUT / "datasets" / owner / name, KAGGLE_INPUT / name):
        if place.is_dir():
            return place
    folder = kaggle_cache() / "datasets" / owner / name
    found = folder / "versions" / version
    return found if found.is_dir() and (folder / f"{version}.complete").is_file() else None


def is_mounted() -> bool:
    """Return whether the machine mounts Kaggle's copy: a Kaggle notebook, or Colab."""
    return bool({"KAGGLE_KERNEL_RUN_TYPE", "TBE_RUNTIME_ADDR"} & set(os.environ))


def kaggle() -> Path:
    """Return the folder of Kaggle's copy, downloaded by kagglehub where it is not cached.

    No login is needed. A Kaggle notebook gives its mounted input, Colab its read-only cache.

    Raises
    ------
    DataError
        If it cannot be downloaded: there is no network, or Kaggle refuses.
    """
    import kagglehub

    try:
        return Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except Exception as error:  # of several libraries; a user needs the remedy, not the type
        raise DataError(_remedy("kaggle", error, page=KAGGLE_PAGE)) from error


def mendeley_cached(*, cache_dir: str | Path, size: int = MENDELEY_BYTES) -> Path | None:
    """Return Mendeley's zip archive if it was downloaded completely."""
    target = Path(cache_dir) / "downloads" / ARCHIVE
    return target if target.is_file() and target.stat().st_size == size else None


def mendeley(*, cache_dir: str | Path, url: str = MENDELEY_URL, size: int = MENDELEY_BYTES) -> Path:
    """Return Mendeley's zip archive, downloaded by pooch where it is not cached.

    The download gets the name of the archive only after its length was checked and it proved to
    be a zip. An interrupted download starts again from the beginning.

    Parameters
    ----------
    cache_dir : path
        The archive is kept in its folder ``downloads``.
    url : str
        Address of the archive.
    size : int
        Its length in bytes; no hash was published.

    Raises
    ------
    DataError
        If it cannot be downloaded, or is not the archive.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    if cached := mendeley_cached(cache_dir=cache_dir, size=size):
        return cached
    folder = Path(cache_dir) / "downloads"
    target = folder / ARCHIVE
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(folder)
    with files.temporary_folder(folder) as work:
        try:
            part = Path(
                pooch.retrieve(
                    url,
                    known_hash=None,
                    path=work,
                    fname=f"{ARCHIVE}.part",
                    downloader=pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=60),
                )
            )
        except Exception as error:  # of requests, urllib3 and the system
            raise DataError(_remedy("mendeley", error, page=MENDELEY_PAGE)) from error
        found = part.stat().st_size
        if found != size or not zipfile.is_zipfile(part):
            raise DataError(
                f"the download from Mendeley Data has {found:,} bytes and is "
                f"{'a' if zipfile.is_zipfile(part) else 'not a'} zip archive; expected {size:,} "
                f"bytes. Try again, or get {ARCHIVE} from {MENDELEY_PAGE} by hand and use "
                f"--data {ARCHIVE}"
            )
        portable.replace(part, target)
    return target


def v7_lung_masks(
    *, cache_dir: str | Path, url: str = V7_URL, fingerprint: str = V7_FINGERPRINT
) -> Path:
    """Return the folder of V7's lung masks, downloaded by pooch where it is not cached.

    V7 Labs, COVID-19 X-ray dataset, CC BY 4.0: ``annotations/all-images-semantic-masks`` of one
    commit. Nothing else of the archive is kept, and the folder appears only when it is complete.

    Parameters
    ----------
    cache_dir : path
        The masks are kept in its folder ``downloads``.
    url : str
        Address of the zip archive of the commit.
    fingerprint : str
        Of the masks, see ``decoding.fingerprint``.

    Raises
    ------
    DataError
        If the archive cannot be downloaded, or holds other masks.
    """
    import pooch

    pooch.get_logger().setLevel("WARNING")
    folder = Path(cache_dir) / "downloads"
    target = folder / f"v7-lung-masks-{fingerprint[:12]}"
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    files.remove_leftovers(folder)
    with files.temporary_folder(folder) as work:
        try:
            downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=60)
            archive = pooch.retrieve(
                url, known_hash=None, path=work, fname="v7.zip.part", downloader=downloader
            )
            with zipfile.ZipFile(archive) as content:
                inside = [n for n in content.namelist() if V7_FOLDER in n and n.endswith(".png")]
                (work / "masks").mkdir()
                for name in inside:
                    (work / "masks" / Path(name).name).write_bytes(content.read(name))
        except Exception as error:  # of requests, urllib3, zipfile and the system
            reason = str(error).strip().split("\n")[0][:160] or type(error).__name__
            raise DataError(
                f"lung_masks=v7 could not be downloaded ({reason}). Download {V7_PAGE} by hand and "
                f"name its folder {V7_FOLDER}, or leave lung_masks empty"
            ) from error
        masks = list((work / "masks").iterdir())
        found = decoding.fingerprint(pd.Series([digests.sha256_of_file(path) for path in masks]))
        if found != fingerprint:
            raise DataError(
                f"the archive of {V7_PAGE} holds {len(masks):,} masks that are not the expected "
                f"ones (fingerprint {found[:12]}, expected {fingerprint[:12]})"
            )
        portable.publish_folder(work / "masks", target)
    return target


def _remedy(source: str, error: Exception, *, page: str) -> str:
    """Return one line: what failed, and how to go on by hand or with phantoms."""
    reason = str(error).strip().split("\n")[0][:160] or type(error).__name__
    return (
        f"--data {source} could not be downloaded ({reason}). Download it by hand from {page} and "
        "give its folder or zip: --data PATH; --data phantom needs no network"
    )
