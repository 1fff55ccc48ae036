"""TeX -> MathML, which browsers draw themselves: no script, no fonts to fetch, read aloud as is."""

import html
import re
import unicodedata
import xml.etree.ElementTree as ET

from latex2mathml.converter import convert

ET.register_namespace("", "http://www.w3.org/1998/Math/MathML")  # no prefix where it is written

# What latex2mathml does not read, and what it does.
SPELLINGS = [
    (r"\\math(cal|bb|bf)\s+(\w)", r"\\math\1{\2}"),
    (r"\\(begin|end)\{aligned\}", r"\\\1{align*}"),
    (r"\\arg\s*\\(max|min)", r"\\arg\1"),
    # A thin space between the name of a function and what it is applied to.
    (r"(\\(?:log|exp|sin|cos|tanh|coth))(?=\s+\w|\s*\\(?![Bb]ig|left|[!,;]))", r"\1\\,"),
]

# A line may end after one of these, outside of brackets, in a formula of more characters than LONG.
BREAKS, OPENING, CLOSING = set("=<>≤≥≈∼∝→+"), set("([{"), set(")]}")
LONG = 20
BEFORE_SIGN = OPENING | set(",;=<>≤≥≈∼∝→∈/")


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
    found = re.sub(r"(<mo[^>]*>([^<]+)</mo><mo)>(?=&#x02212;)", _sign, found)
    if re.search(r"\\|&<|mathvariant=.(?!normal)", found):
        raise ValueError(f"no MathML for a part of the formula {tex!r}: {found}")
    return found


def in_lines(formula: str) -> str:
    """A long inline formula as several in a row: browsers break lines between, not within, them."""
    whole = ET.fromstring(formula)
    if len("".join(whole.itertext())) <= LONG:
        return formula
    pieces, depth = [[]], 0
    for item in whole[0]:
        pieces[-1].append(item)
        sign = "".join(item.itertext())
        depth += (sign in OPENING) - (sign in CLOSING)
        if sign in BREAKS and depth == 0:
            item.set("form", "infix")  # keeps its space as the last of a formula
            pieces.append([])
    parts = []
    for piece in filter(None, pieces):
        part = ET.Element(whole.tag, whole.attrib)
        ET.SubElement(part, whole[0].tag).extend(piece)
        parts.append(ET.tostring(part, encoding="unicode"))
    return "".join(parts)


def _sign(match: re.Match) -> str:
    """The minus of a number that is negative stands close to it, unlike one between two terms."""
    alone = html.unescape(match[2]) in BEFORE_SIGN
    return f'{match[1]} form="prefix">' if alone else match[0]


def _styled(match: re.Match) -> str:
    """Browsers know no mathvariant: take the character that looks so, such as 𝒩, ℒ or 𝟙."""
    tag, style, character = match.groups()
    name = unicodedata.name(character).replace("LATIN ", "").replace("LETTER ", "")
    style = style.upper()
    try:
        return f"{tag}>{unicodedata.lookup(f'MATHEMATICAL {style} {name}')}<"
    except KeyError:
        return f"{tag}>{unicodedata.lookup(f'{style} {name}')}<"  # older ones, such as ℒ
