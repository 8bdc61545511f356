"""The provider of `docs/providers.md`, made of the page's own words, so that the page can't be wrong about it."""

import re
from pathlib import Path

from delivery.providers.base import Provider

PAGE = Path(__file__).resolve().parents[2] / "docs" / "providers.md"


def _read() -> type[Provider]:
    (program,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, object] = {"__name__": __name__}
    exec(compile(program, str(PAGE), "exec"), names)
    (found,) = (each for each in names.values() if isinstance(each, type) and each.__module__ == __name__)
    assert issubclass(found, Provider)
    return found


EXAMPLE = _read()
