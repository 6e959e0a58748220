"""A small font for mathematics: systems without one show Greek letters as boxes."""

from __future__ import annotations

import base64
import html
import io
import re
from pathlib import Path

SOURCE = "STIXGeneral.ttf"  # comes with matplotlib; SIL Open Font License

ACCENTS = {"\u0302": "\u02c6", "\u0303": "\u02dc", "\u0304": "\u00af", "\u0307": "\u02d9"}

# Spacing of fractions, limits and indices in thousandths of the font size: usual values for a text
# face. The font has no MATH table, and without one browsers let these parts collide.
LAYOUT = {
    "ScriptPercentScaleDown": 70,
    "ScriptScriptPercentScaleDown": 55,
    "DelimitedSubFormulaMinHeight": 1300,
    "AxisHeight": 258,
    "AccentBaseHeight": 450,
    "FlattenedAccentBaseHeight": 662,
    "SubscriptShiftDown": 210,
    "SubscriptTopMax": 360,
    "SubscriptBaselineDropMin": 160,
    "SuperscriptShiftUp": 360,
    "SuperscriptShiftUpCramped": 260,
    "SuperscriptBottomMin": 120,
    "SuperscriptBaselineDropMax": 230,
    "SubSuperscriptGapMin": 150,
    "SuperscriptBottomMaxWithSubscript": 380,
    "SpaceAfterScript": 40,
    "UpperLimitGapMin": 135,
    "UpperLimitBaselineRiseMin": 250,
    "LowerLimitGapMin": 135,
    "LowerLimitBaselineDropMin": 600,
    "StackTopShiftUp": 470,
    "StackTopDisplayStyleShiftUp": 780,
    "StackBottomShiftDown": 385,
    "StackBottomDisplayStyleShiftDown": 690,
    "StackGapMin": 150,
    "StackDisplayStyleGapMin": 300,
    "FractionNumeratorShiftUp": 480,
    "FractionNumeratorDisplayStyleShiftUp": 640,
    "FractionDenominatorShiftDown": 480,
    "FractionDenominatorDisplayStyleShiftDown": 640,
    "FractionNumeratorGapMin": 60,
    "FractionNumDisplayStyleGapMin": 150,
    "FractionRuleThickness": 55,
    "FractionDenominatorGapMin": 60,
    "FractionDenomDisplayStyleGapMin": 150,
    "OverbarVerticalGap": 150,
    "OverbarRuleThickness": 55,
    "OverbarExtraAscender": 55,
    "UnderbarVerticalGap": 150,
    "UnderbarRuleThickness": 55,
    "UnderbarExtraDescender": 55,
    "RadicalVerticalGap": 80,
    "RadicalDisplayStyleVerticalGap": 180,
    "RadicalRuleThickness": 55,
    "RadicalExtraAscender": 70,
    "RadicalKernBeforeDegree": 270,
    "RadicalKernAfterDegree": -400,
    "RadicalDegreeBottomRaisePercent": 55,
}


def data_url(page: str) -> str | None:
    """Return a WOFF font with the characters of a page's MathML as a ``data:`` URL.

    Parameters
    ----------
    page : str
        HTML that may contain ``<math>`` elements.

    Returns
    -------
    str or None
        None if the page has no mathematics.
    """
    characters = mathematics(page)
    if not characters:
        return None
    import matplotlib
    from fontTools import subset
    from fontTools.otlLib.builder import buildMathTable
    from fontTools.ttLib import TTFont

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", SOURCE)
    font = TTFont(path, recalcTimestamp=False)
    options = subset.Options(hinting=False, notdef_outline=True)
    options.drop_tables += ["FFTM"]
    subsetter = subset.Subsetter(options)
    subsetter.populate(unicodes=characters)
    subsetter.subset(font)
    any_glyph = font.getGlyphOrder()[0]  # Chromium drops a MATH table with an empty part
    buildMathTable(
        font,
        constants=LAYOUT,
        italicsCorrections={any_glyph: 0},
        vertGlyphVariants={any_glyph: [(any_glyph, 1000)]},
    )
    font.flavor = "woff"
    buffer = io.BytesIO()
    font.save(buffer)
    return "data:font/woff;base64," + base64.b64encode(buffer.getvalue()).decode()


def mathematics(page: str) -> set[int]:
    """Return the code points that a browser renders for a page's MathML.

    Single letters are rendered as mathematical italics, so these are added.
    """
    code_points: set[int] = set()
    for formula in re.findall(r"<math\b.*?</math>", page, flags=re.DOTALL):
        visible = re.sub(r"<annotation\b.*?</annotation>", "", formula, flags=re.DOTALL)
        code_points |= {ord(char) for char in html.unescape(re.sub(r"<[^>]+>", "", visible))}
    return code_points | {italic(code) for code in code_points}


def spacing_accents(page: str) -> str:
    """Return the page with MathML accents as spacing characters, which browsers can centre."""
    return re.sub(
        r'(<mo accent="true">)(.)(</mo>)',
        lambda match: match[1] + ACCENTS.get(match[2], match[2]) + match[3],
        page,
    )


def italic(code: int) -> int:
    """Return the code point of a letter's mathematical italic, or the code point itself."""
    for first, last, start in ((0x41, 0x5A, 0x1D434), (0x61, 0x7A, 0x1D44E)):
        if first <= code <= last:
            return 0x210E if code == ord("h") else start + code - first
    for first, last, start in ((0x391, 0x3A9, 0x1D6E2), (0x3B1, 0x3C9, 0x1D6FC)):
        if first <= code <= last:
            return start + code - first
    return code
