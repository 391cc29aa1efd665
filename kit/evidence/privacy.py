"""What may be told of a machine: facts that figures depend on; never a path, a user or a host."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from pathlib import Path

from kit.card import bytes_text

_ROOTS = r"home|root|Users|tmp|var|opt|mnt|media|srv|private|Volumes|work|usr|etc|data|build|workspace|content|kaggle"
_POSIX = re.compile(rf"(?<![\w./-])/(?:{_ROOTS})(?:/[^\s'\"<>|:,;()\[\]]+)+/?")
# A person's folder may have a space in its name; what follows must then be a slash.
_OWNER = re.compile(r"(?<![\w./-])(/(?:home|Users)/|[A-Za-z]:\\Users\\)[^\s'\"<>|/\\]+(?: [^\s'\"<>|/\\]+){0,2}[/\\]")
_WINDOWS = re.compile(r"(?<!\w)[A-Za-z]:\\(?:[^\s'\"<>|:,;()\[\]]+\\?)+")


def machine() -> dict[str, str]:
    """What figures depend on: system, processor, memory, Python. Neither host nor user."""
    import psutil

    from kit.int8.processor import this_processor

    return {"system": f"{platform.system()} {platform.machine()}",
            "processor": f"{this_processor().name}, {os.cpu_count()} cores",
            "memory": bytes_text(psutil.virtual_memory().total), "Python": platform.python_version()}


def private(text: str) -> str:
    """The text with every absolute path cut to its last part.

    Known folders (home, current, temporary) go first, because only they are certain to be recognised when a name in
    them holds a space. Node names such as ``/backbone/conv`` stay: they do not begin with a folder of a file system.
    """
    for folder in sorted({str(Path.cwd()), str(Path.home()), tempfile.gettempdir()}, key=len, reverse=True):
        if len(folder) > 1:
            text = re.sub(re.escape(folder) + r"(?=[/\\])[/\\]?", "", text)
            text = text.replace(folder, "...")
    text = _OWNER.sub(lambda found: found[1], text)
    text = _POSIX.sub(lambda found: found[0].rstrip("/").rpartition("/")[2], text)
    return _WINDOWS.sub(lambda found: found[0].rstrip("\\").rpartition("\\")[2], text)
