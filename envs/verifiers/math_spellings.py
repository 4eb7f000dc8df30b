# ruff: noqa: RUF001
r"""Tables of spellings: characters, commands and functions that answers are written with."""

from __future__ import annotations


def names(text: str) -> tuple[str, ...]:
    """Return the words of a text: tables of names are written so."""
    return tuple(text.split())


CHARACTERS = {
    **dict.fromkeys("\u2212\u2013\u2014\u2010\u2011\ufe63", "-"),
    **dict.fromkeys("\u00a0\u2009\u202f\u2002\u2003\u200a\u3000\t\n\r\u2028", " "),
    **dict.fromkeys("\u200b\u200c\u200d\ufeff\u2060\u2061\u2062", ""),
    **{"×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "∗": r"\cdot "},
    **{"÷": r"\div ", "±": r"\pm ", "∓": r"\mp ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne "},
    **{"⩽": r"\le ", "⩾": r"\ge ", "≦": r"\le ", "≧": r"\ge ", "∈": r"\in ", "≡": r"\equiv "},
    **{"≈": r"\approx ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ", "∞": r"\infty "},
    **{"√": r"\sqrt ", "∛": r"\sqrt[3] ", "°": r"^\circ ", "º": r"^\circ ", "˚": r"^\circ "},
    **{"π": r"\pi ", "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma "},
    **{"φ": r"\phi ", "λ": r"\lambda ", "μ": r"\mu ", "ω": r"\omega ", "σ": r"\sigma "},
    **{"δ": r"\delta ", "ε": r"\epsilon ", "ρ": r"\rho ", "τ": r"\tau ", "Δ": r"\Delta "},
    **{"ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}"},
    **{"ℂ": r"\mathbb{C}", "⟨": r"\langle ", "⟩": r"\rangle ", "⌊": r"\lfloor ", "⌋": r"\rfloor "},
    **{"⌈": r"\lceil ", "⌉": r"\rceil ", "…": r"\ldots ", "⋯": r"\ldots ", "′": "'", "’": "'"},
    **{"½": r"\frac{1}{2}", "⅓": r"\frac{1}{3}", "⅔": r"\frac{2}{3}", "¼": r"\frac{1}{4}"},
    **{"¾": r"\frac{3}{4}", "⅕": r"\frac{1}{5}", "⅖": r"\frac{2}{5}", "⅗": r"\frac{3}{5}"},
    **{"⅘": r"\frac{4}{5}", "⅙": r"\frac{1}{6}", "⅚": r"\frac{5}{6}", "⅛": r"\frac{1}{8}"},
    **{"⅜": r"\frac{3}{8}", "⅝": r"\frac{5}{8}", "⅞": r"\frac{7}{8}", "％": r"\%", "﹪": r"\%"},
    **{"∠": r"\angle ", "△": r"\triangle ", "∖": r"\setminus ", "ı": "i", "⁄": "/", "∕": "/"},
    **{"∧": r"\text{ and }", "∨": r"\text{ or }"},
}
SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿ", "0123456789+-n", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
TEXT_COMMANDS = {
    *("text", "textnormal", "textrm", "textbf", "textit", "textsf", "texttt", "textup", "textsl"),
    *("mbox", "hbox", "mathrm", "operatorname", "mathop", "emph", "unit", "mathtt"),
}
FONTS = {
    "mathbf",
    "mathit",
    "mathsf",
    "boldsymbol",
    "bm",
    "mathnormal",
    "bold",
    "pmb",
    "underline",
    "framebox",
    "boxed",
    "fbox",
    "ensuremath",
}
TEXT_SWITCHES = {"rm", "bf", "it", "sf", "tt", "bfseries", "itshape", "em"}
LAYOUT = {
    *("displaystyle", "textstyle", "scriptstyle", "limits", "nolimits", "left", "right", "middle"),
    *("big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl", "biggr", "Biggl"),
    *("Biggr", "bigm", "mathstrut", "strut", "allowbreak", "nonumber", "noindent", "null"),
    *("tiny", "small", "normalsize", "large", "Large", "LARGE", "huge", "Huge"),
}
BLANK_COMMANDS = {
    "quad",
    "qquad",
    "thinspace",
    "enspace",
    "space",
    "hfill",
    "newline",
    "smallskip",
    "therefore",
    "checkmark",
    "blacksquare",
    "qed",
}
IGNORED_WITH_GROUP = {
    "hspace",
    "vspace",
    "phantom",
    "hphantom",
    "vphantom",
    "label",
    "tag",
    "color",
    "textcolor",
}
RENAMED = {
    **dict.fromkeys(("dfrac", "tfrac", "cfrac", "nicefrac", "sfrac"), "frac"),
    **dict.fromkeys(("dbinom", "tbinom"), "binom"),
    **{"leq": "le", "leqslant": "le", "leqq": "le", "geq": "ge", "geqslant": "ge", "geqq": "ge"},
    **{"neq": "ne", "lt": "<", "gt": ">", "varnothing": "emptyset", "lbrace": "{", "rbrace": "}"},
    **{"lbrack": "[", "rbrack": "]", "dots": "ldots", "cdots": "ldots", "dotsc": "ldots"},
    **{"dotsb": "ldots", "vert": "|", "lvert": "|", "rvert": "|", "mid": "|", "colon": ":"},
    **{"ast": "cdot", "bullet": "cdot", "land": "wedge", "lor": "vee", "to": "to", "lg": "log"},
    **{"bigcup": "cup", "bigcap": "cap"},
    **{"varepsilon": "epsilon", "varphi": "phi", "vartheta": "theta", "degree": "circ"},
    **{"simeq": "approx", "thickapprox": "approx", "approxeq": "approx", "imath": "i"},
    **{"bmod": "mod", "pmod": "mod", "backslash": "setminus", "bar": "overline", "prime": "'"},
    **{"slash": "/", "infin": "infty", "real": "R", "Reals": "R", "tg": "tan", "ctg": "cot"},
    **{"arcctg": "arccot", "arctg": "arctan", "overset": "overset", "dollar": "$", "percent": "%"},
}
GREEK = names(
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi rho sigma tau "
    "upsilon phi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega hbar ell"
)
FUNCTIONS = names(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech "
    "csch cis log ln exp max min gcd lcm det"
)
KNOWN = {
    *GREEK, *FUNCTIONS, *names("R Z N Q C i"),
    *names("frac binom choose sqrt overline dot pm mp times cdot div le ge ne in notin equiv"),
    *names("approx cup cap setminus emptyset infty pi langle rangle lfloor rfloor lceil rceil"),
    *names("ldots circ angle triangle mod sum prod sim subset subseteq wedge vee vec hat pounds"),
    *names("euro overrightarrow mathcal mathbb land star dagger perp parallel odot"),
}  # fmt: skip
PLAIN_FUNCTIONS = {name: name for name in (*FUNCTIONS, "sqrt", "pi", "infty")} | {
    "infinity": "infty", "inf": "infty", "oo": "infty", "theta": "theta", "Infinity": "infty",
}  # fmt: skip
