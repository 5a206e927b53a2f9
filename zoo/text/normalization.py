"""Named text normalisations, composed into one `tokenizers` normaliser."""

import difflib
from collections.abc import Sequence

from tokenizers import Regex, normalizers

from zoo.errors import ConfigError

STEPS = {
    "nfc": lambda: [normalizers.NFC()],
    "nfd": lambda: [normalizers.NFD()],
    "nfkc": lambda: [normalizers.NFKC()],
    "nfkd": lambda: [normalizers.NFKD()],
    "lowercase": lambda: [normalizers.Lowercase()],
    # Drops every combining mark: right for Latin, wrong for Thai vowels or Japanese voicing marks.
    "strip_accents": lambda: [normalizers.NFD(), normalizers.StripAccents(), normalizers.NFC()],
    "whitespace": lambda: [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()],
    # A space at both ends of a text: its first and last word end as all others do.
    "edges": lambda: [normalizers.Replace(Regex(r"\A|\z"), " ")],
}


def normalization_steps(
    names: str | Sequence[str] | None, lowercase: bool = False
) -> list[normalizers.Normalizer]:
    """Turn names such as `"nfkc"` or `"nfkc+strip_accents"` into normalisers, in order.

    Raises:
        ConfigError: for a name that is not in `STEPS`.
    """
    if names is None:
        names = []
    elif isinstance(names, str):
        names = [name for name in names.replace(",", "+").split("+") if name.strip()]
    steps: list[normalizers.Normalizer] = []
    wanted = [name.strip().lower() for name in names]
    for name in wanted:
        if name not in STEPS:
            near = difflib.get_close_matches(name, STEPS, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(
                f"unknown text normalisation {name!r}{hint}; expected some of: {', '.join(STEPS)}"
            )
        steps += STEPS[name]()
    if lowercase and "lowercase" not in wanted:
        steps += STEPS["lowercase"]()
    return steps


def compose(steps: Sequence[normalizers.Normalizer]) -> normalizers.Normalizer | None:
    """One normaliser out of several; None for none."""
    if not steps:
        return None
    return steps[0] if len(steps) == 1 else normalizers.Sequence(list(steps))
