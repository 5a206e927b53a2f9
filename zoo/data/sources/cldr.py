"""CLDR data of one locale out of Babel, the same in every process.

Babel's own `Locale` resolves aliases of the shared root data in place, so what
`Locale("de").months["stand-alone"]` holds depends on which locale was looked at first (Babel 2.18).
Here each locale gets its own copy of every part.
"""

import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

from babel import localedata
from babel.core import get_global


def _part(name: str) -> dict[Any, Any]:
    return pickle.loads(Path(localedata.resolve_locale_filename(name)).read_bytes())


def own(name: str) -> dict[Any, Any]:
    """What the data file of `name` itself says: nothing inherited, aliases unresolved."""
    return _part(name)


@lru_cache(maxsize=128)
def load(name: str) -> localedata.LocaleDataDict:
    """Data of `name` merged over its parents and the root, aliases resolved on access.

    Args:
        name: a CLDR locale such as `de` or `en_GB`.
    """
    chain = [name]
    while chain[-1] != "root":
        parent = get_global("parent_exceptions").get(chain[-1])
        chain.append(parent or (chain[-1].rpartition("_")[0] or "root"))
    data: dict[Any, Any] = {}
    for part in reversed(chain):
        localedata.merge(data, _part(part))
    return localedata.LocaleDataDict(data)
