"""Write the project's address and release into the notebooks and the README, from pyproject.toml.

    uv run docs/addresses.py

Whoever publishes the project sets ``Repository`` under ``[project.urls]`` and runs this once: the
notebooks' set-up cells then fetch that repository, and notebooks and README get their buttons.
Without an address there are no buttons, and a set-up cell asks for it.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUTTONS = re.compile(r"<!-- buttons -->.*?<!-- end of the buttons -->", re.DOTALL)
IMAGES = {
    "Colab": "https://colab.research.google.com/assets/colab-badge.svg",
    "Kaggle": "https://kaggle.com/static/images/open-in-kaggle.svg",
    "Binder": "https://mybinder.org/badge_logo.svg",
}


def project() -> tuple[str, str]:
    """Return the address of the project's repository, empty if none is set, and its release."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    address = content.get("urls", {}).get("Repository", "")
    return address.removesuffix("/").removesuffix(".git"), f"v{content['version']}"


def buttons(notebook: str, *, address: str, release: str) -> str:
    """Return Markdown with a button for each service that opens a notebook from GitHub.

    Parameters
    ----------
    notebook : str
        Path in the repository.
    address, release : str
        As ``project`` returns them; without an address on GitHub there are no buttons.
    """
    place = address.removeprefix("https://github.com/")
    links = {
        "Colab": f"https://colab.research.google.com/github/{place}/blob/{release}/{notebook}",
        "Kaggle": f"https://kaggle.com/kernels/welcome?src={address}/blob/{release}/{notebook}",
        "Binder": f"https://mybinder.org/v2/gh/{place}/{release}?urlpath=lab/tree/{notebook}",
    }
    shown = [f"[![Open in {name}]({IMAGES[name]})]({link})" for name, link in links.items()]
    line = " ".join(shown) if place != address else ""
    return f"<!-- buttons -->{line}<!-- end of the buttons -->"


def stamped(path: Path, *, address: str, release: str) -> str:
    """Return the content of a notebook or of the README with the address and its buttons."""
    text = path.read_text(encoding="utf-8")
    name = "notebooks/01_data.ipynb" if path.suffix == ".md" else f"notebooks/{path.name}"
    own = buttons(name, address=address, release=release)
    if path.suffix == ".md":
        return BUTTONS.sub(lambda _: own, text)
    book = json.loads(text)
    for cell in book["cells"]:
        source = BUTTONS.sub(lambda _: own, "".join(cell["source"]))
        if "setup" in cell["metadata"].get("tags", []):
            source = re.sub(r'^REPOSITORY = ".*?"', f'REPOSITORY = "{address}"', source, flags=re.M)
            source = re.sub(r'^RELEASE = ".*?"', f'RELEASE = "{release}"', source, flags=re.M)
        cell["source"] = source.splitlines(keepends=True)
    return json.dumps(book, indent=1, ensure_ascii=False) + "\n"


def main() -> int:
    """Write each file that differs and print its name."""
    address, release = project()
    for path in [ROOT / "README.md", *sorted((ROOT / "notebooks").glob("*.ipynb"))]:
        content = stamped(path, address=address, release=release)
        if content != path.read_text(encoding="utf-8"):
            path.write_text(content, encoding="utf-8")
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
