r"""Random polynomials, unions and congruences: right spellings and near misses."""

from __future__ import annotations

from random import Random

from tests.envs.verifiers.math_structures import Structure


def statement(rng: Random) -> Structure:
    """A random polynomial, union of two rays, or congruence."""
    return rng.choice((polynomial, rays, congruence))(rng)


def _term(factor: int, power: str) -> str:
    """A signed term with no factor of 1."""
    sign = "-" if factor < 0 else "+"
    size = "" if abs(factor) == 1 and power else str(abs(factor))
    return f"{sign} {size}{power} " if factor else ""


def polynomial(rng: Random) -> Structure:
    """A polynomial of second degree, in factors or expanded."""
    name = rng.choice("xnt")
    lead, one, two = rng.randint(1, 4), rng.randint(-6, 6), rng.randint(-6, 6)

    def spell_as(lead: int, one: int, two: int, name: str, rng: Random) -> str:
        roots = [one, two]
        rng.shuffle(roots)
        if rng.random() < 0.5:
            parts = "".join(f"({name}{_term(-root, '').rstrip()})" for root in roots)
            return f"{lead if lead > 1 else ''}{parts}"
        terms = [_term(lead, rng.choice((f"{name}^2", f"{name}^{{2}}")))]
        terms += [_term(-lead * (one + two), name), _term(lead * one * two, "")]
        if rng.random() < 0.4:
            rng.shuffle(terms)
        return "".join(terms).strip().removeprefix("+ ")

    def miss(rng: Random) -> str:
        other = name.translate(str.maketrans("xnt", "ntx"))
        wrong = [(lead, one + 1, two, name), (lead + 1, one, two, name), (lead, one, two, other)]
        if one * two and one + two:
            wrong.append((lead, -one, -two, name))
        return spell_as(*rng.choice(wrong), rng)

    return Structure(lambda rng: spell_as(lead, one, two, name, rng), miss)


def rays(rng: Random) -> Structure:
    """All numbers below one bound or above a greater one."""
    low = rng.randint(-9, 5)
    high = low + rng.randint(1, 9)
    ends = rng.choice((")(", "](", ")[", "]["))

    def spell_as(low: int, high: int, ends: str, rng: Random) -> str:
        if rng.random() < 0.5:
            parts = [
                f"(-\\infty, {low}{ends[0]}",
                f"{ends[1]}{high}, {rng.choice(('+', ''))}\\infty)",
            ]
            rng.shuffle(parts)
            return rng.choice(("x \\in ", "")) + rng.choice((" \\cup ", "\\cup")).join(parts)
        below = {")": "<", "]": rng.choice(("\\le", "\\leq"))}[ends[0]]
        above = {"(": ">", "[": rng.choice(("\\ge", "\\geq"))}[ends[1]]
        parts = [f"x {below} {low}", f"x {above} {high}"]
        rng.shuffle(parts)
        return " \\text{ or } ".join(parts)

    def miss(rng: Random) -> str:
        others = [o for o in (")(", "](", ")[", "][") if o != ends]
        kind = rng.randrange(4)
        if kind == 0:
            return spell_as(low, high, rng.choice(others), rng)
        if kind == 1:
            return spell_as(low, high + 1, ends, rng)
        if kind == 2:
            return f"({low}, {high})"
        return f"(-\\infty, {low}{ends[0]}"

    return Structure(lambda rng: spell_as(low, high, ends, rng), miss)


def congruence(rng: Random) -> Structure:
    """All numbers of one remainder."""
    modulus = rng.randint(3, 30)
    remainder = rng.randrange(1, modulus)

    def spell_as(remainder: int, modulus: int, rng: Random) -> str:
        forms = (
            *(f"\\pmod{{{modulus}}}", f"\\pmod {modulus}", f"\\mod {modulus}"),
            *(
                f"\\bmod {modulus}",
                f"\\ (\\text{{mod }} {modulus})",
                f"(\\mathrm{{mod}}\\ {modulus})",
            ),
        )
        return f"x \\equiv {remainder} {rng.choice(forms)}"

    def miss(rng: Random) -> str:
        wrong = (
            *(spell_as(remainder - 1, modulus, rng), spell_as(remainder, modulus + 1, rng)),
            *(str(modulus), f"x \\equiv {modulus} \\pmod{{{remainder}}}", "x"),
        )
        return rng.choice(wrong)

    return Structure(lambda rng: spell_as(remainder, modulus, rng), miss)
