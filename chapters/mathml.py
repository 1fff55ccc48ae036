"""TeX -> MathML, which browsers draw themselves: no script, no fonts to fetch, read aloud as is."""

import re
import unicodedata

from latex2mathml.converter import convert

# What latex2mathml does not read, and what it does.
SPELLINGS = [
    (r"\\math(cal|bb|bf)\s+(\w)", r"\\math\1{\2}"),
    (r"\\(begin|end)\{aligned\}", r"\\\1{align*}"),
    (r"\\arg\s*\\(max|min)", r"\\arg\1"),
    # A thin space between the name of a function and what it is applied to.
    (r"(\\(?:log|exp|sin|cos|tanh|coth))(?=\s+\w|\s*\\(?![Bb]ig|left|[!,;]))", r"\1\\,"),
]


def mathml(tex: str, display: str = "inline") -> str:
    """The formula as a `math` element; `display` is inline or block. ValueError: cannot read it."""
    source = tex.strip()
    for pattern, spelling in SPELLINGS:
        source = re.sub(pattern, spelling, source)
    try:
        found = convert(source, display=display)
    except Exception as error:  # of many kinds
        raise ValueError(f"no MathML for the formula {tex!r}: {error!r}") from error
    found = re.sub(r">\\([{}])<", r">\1<", found).replace(r">\|<", ">‖<")  # after \big
    found = re.sub(r'(<m[in]) mathvariant="(?!normal)([\w-]+)">(\w)<', _styled, found)
    if re.search(r"\\|&<|mathvariant=.(?!normal)", found):
        raise ValueError(f"no MathML for a part of the formula {tex!r}: {found}")
    return found


def _styled(match: re.Match) -> str:
    """Browsers know no mathvariant: take the character that looks so, such as 𝒩, ℒ or 𝟙."""
    tag, style, character = match.groups()
    name = unicodedata.name(character).replace("LATIN ", "").replace("LETTER ", "")
    style = style.upper()
    try:
        return f"{tag}>{unicodedata.lookup(f'MATHEMATICAL {style} {name}')}<"
    except KeyError:
        return f"{tag}>{unicodedata.lookup(f'{style} {name}')}<"  # older ones, such as ℒ
