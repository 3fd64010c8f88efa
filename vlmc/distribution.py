"""How vlmc itself was installed, and the command that adds one of its extras."""

from __future__ import annotations

import json
from importlib.metadata import distributions
from typing import Any
from urllib.parse import unquote, urlsplit

DISTRIBUTION = "vlm-compiler"
"""The name that pip installs; the package and the command are `vlmc`. pyproject.toml has it too."""


def install_command(extra: str) -> str:
    """The command that installs vlmc with an extra, for messages about a missing package.

    An editable install is repeated from its clone. Another install names the URL that it came
    from, if pip recorded one (https://packaging.python.org/specifications/direct-url).
    """
    origin = _origin()
    if origin.get("dir_info", {}).get("editable", False):
        clone = unquote(urlsplit(origin["url"]).path)
        return f"pip install -e '.[{extra}]' (in {clone})"
    url = origin.get("url", "")
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f"pip install '{DISTRIBUTION}[{extra}]{url and ' @ ' + url}'"


def _origin() -> dict[str, Any]:
    """What pip recorded about the source of the install; empty if it came from an index."""
    # A build can leave metadata without this record in the current folder: look at every one.
    for found in distributions(name=DISTRIBUTION):
        text = found.read_text("direct_url.json")
        if text is not None:
            origin: dict[str, Any] = json.loads(text)
            return origin
    return {}
